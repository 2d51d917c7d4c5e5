#include "dist/engine.h"

#include <span>
#include <utility>

#include "core/growing_plan.h"
#include "dist/activity.h"
#include "dist/progress_thread.h"

namespace mla::dist {

namespace {

Holdings holdings_of(const Partition& partition, int rank, const kernels::RankInputs& inputs) {
  const auto pieces = partition.pieces_of(rank);
  return {.pieces = {pieces.begin(), pieces.end()}, .inputs = inputs};
}

kernels::RankInputs inputs_of(const Holdings& holdings, std::span<const Piece> pieces) {
  kernels::RankInputs inputs{.kv = holdings.inputs.kv, .pieces = {}};
  for (const std::size_t place : places_in(holdings.pieces, pieces)) {
    inputs.pieces.push_back(holdings.inputs.pieces[place]);
  }
  return inputs;
}

}  // namespace

Decoder::Decoder(const Communicator& comm, const Batch& batch, const Partition& partition,
                 Holdings holdings, const kernels::Backend& backend, const DecodeSettings& settings)
    : comm_(comm),
      batch_(batch),
      partition_(partition),
      holdings_(std::move(holdings)),
      backend_(backend),
      options_(settings.compute),
      on_gpu_(!backend.gpus().empty()),
      combine_(comm, batch, partition,
               {.exchange = settings.exchange,
                .element = settings.compute.exact ? WireElement::kFp32 : WireElement::kBf16,
                .threads = settings.compute.threads,
                .pretended_ranks_per_node = settings.pretended_ranks_per_node,
                .cost = settings.cost}) {
  make_groups();
  prepare_seconds_ = prepare_watch_.seconds();
}

Decoder::Decoder(const Communicator& comm, const Batch& batch, const Partition& partition,
                 const kernels::RankInputs& inputs, const kernels::Backend& backend,
                 const DecodeSettings& settings)
    : Decoder(comm, batch, partition, holdings_of(partition, comm.rank(), inputs), backend,
              settings) {}

void Decoder::follow_partition() {
  combine_.reroute();
  make_groups();
}

void Decoder::follow_lengths() {
  for (std::size_t group = 0; group < groups_.size(); ++group) plan_group(group);
}

void Decoder::make_groups() {
  const std::vector<WorkGroup> before = std::move(groups_);
  const int rank = comm_.rank();
  const kernels::RankInputs inputs = inputs_of(holdings_, partition_.pieces_of(rank));
  groups_ = on_gpu_ ? ungrouped_work(partition_, rank, inputs)
                    : group_work(batch_, partition_, rank, inputs, options_.threads);
  results_.resize(groups_.size());
  comm_.together([&] {
    for (std::size_t g = 0; g < groups_.size(); ++g) {
      if (g >= before.size() || before[g].owned != groups_[g].owned) {
        results_[g] = std::make_unique<ResultBuilder>(batch_, groups_[g].owned);
      }
      plan_group(g);
    }
  });
}

void Decoder::plan_group(std::size_t group) {
  const WorkGroup& work = groups_[group];
  if (group == decoders_.size()) {
    // A GPU gets the tensors of all that it will ever compute.
    const auto& pieces = on_gpu_ ? holdings_.pieces : work.pieces;
    const auto& inputs = on_gpu_ ? holdings_.inputs : work.inputs;
    decoders_.push_back(backend_.make_decoder(batch_, pieces, inputs, options_));
    if (pieces == work.pieces) return;
  }
  decoders_[group]->replan(work.pieces, work.inputs);
}

const std::vector<kernels::OpenItem>& Decoder::compute(std::size_t group,
                                                       std::atomic<std::int64_t>* chunks_done,
                                                       DecodeStats& stats) {
  const Stopwatch watch;
  const auto& open = decoders_[group]->run(*results_[group], chunks_done);
  stats.compute_seconds += watch.seconds();
  return open;
}

DecodeStats Decoder::run(const OnResults& on_results, std::atomic<std::int64_t>* chunks_done) {
  enter(Phase::kCompute);
  DecodeStats stats{.prepare_seconds = prepare_seconds_};
  const auto& open = compute(0, chunks_done, stats);
  combine_.post(decoders_[0]->items(), open);
  for (std::size_t group = 1; group < groups_.size(); ++group) {
    ProgressThread progress(combine_);
    compute(group, chunks_done, stats);
    progress.stop();
    on_results(std::as_const(*results_[group]).slices());
  }
  combine_.finish(*results_[0]);
  stats.combine = combine_.stats();
  if (!groups_[0].owned.empty()) on_results(std::as_const(*results_[0]).slices());
  return stats;
}

DecodeStats decode(const Communicator& comm, const Batch& batch, const Partition& partition,
                   const kernels::RankInputs& inputs, const kernels::Backend& backend,
                   const DecodeSettings& settings, const OnResults& on_results,
                   std::atomic<std::int64_t>* chunks_done) {
  return Decoder(comm, batch, partition, inputs, backend, settings).run(on_results, chunks_done);
}

}  // namespace mla::dist
