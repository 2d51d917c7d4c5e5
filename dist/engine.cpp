#include "dist/engine.h"

#include "dist/activity.h"
#include "dist/progress_thread.h"

namespace mla::dist {

Decoder::Decoder(const Communicator& comm, const Batch& batch, const Partition& partition,
                 const kernels::RankInputs& inputs, const kernels::Backend& backend,
                 const DecodeSettings& settings)
    : batch_(batch),
      combine_(comm, batch, partition,
               {.exchange = settings.exchange,
                .element = settings.compute.exact ? WireElement::kFp32 : WireElement::kBf16,
                .threads = settings.compute.threads,
                .pretended_ranks_per_node = settings.pretended_ranks_per_node,
                .cost = settings.cost}) {
  const bool on_gpu = !backend.gpus().empty();  // which is best given all at once
  groups_ = on_gpu ? ungrouped_work(partition, comm.rank(), inputs)
                   : group_work(batch, partition, comm.rank(), inputs, settings.compute.threads);
  comm.together([&] {
    for (const WorkGroup& group : groups_) {
      decoders_.push_back(
          backend.make_decoder(batch, group.pieces, group.inputs, settings.compute));
    }
  });
  prepare_seconds_ = prepare_watch_.seconds();
}

const std::vector<kernels::OpenItem>& Decoder::compute(std::size_t group, ResultBuilder& results,
                                                       std::atomic<std::int64_t>* chunks_done,
                                                       DecodeStats& stats) {
  const Stopwatch watch;
  const auto& open = decoders_[group]->run(results, chunks_done);
  stats.compute_seconds += watch.seconds();
  return open;
}

DecodeStats Decoder::run(const OnResults& on_results, std::atomic<std::int64_t>* chunks_done) {
  enter(Phase::kCompute);
  DecodeStats stats{.prepare_seconds = prepare_seconds_};
  ResultBuilder shared_results(batch_, groups_[0].owned);
  const auto& open = compute(0, shared_results, chunks_done, stats);
  combine_.post(decoders_[0]->items(), open);
  for (std::size_t group = 1; group < groups_.size(); ++group) {
    ResultBuilder results(batch_, groups_[group].owned);
    ProgressThread progress(combine_);
    compute(group, results, chunks_done, stats);
    progress.stop();
    on_results(results.take());
  }
  combine_.finish(shared_results);
  stats.combine = combine_.stats();
  if (!groups_[0].owned.empty()) on_results(shared_results.take());
  return stats;
}

DecodeStats decode(const Communicator& comm, const Batch& batch, const Partition& partition,
                   const kernels::RankInputs& inputs, const kernels::Backend& backend,
                   const DecodeSettings& settings, const OnResults& on_results,
                   std::atomic<std::int64_t>* chunks_done) {
  return Decoder(comm, batch, partition, inputs, backend, settings).run(on_results, chunks_done);
}

}  // namespace mla::dist
