#include "dist/engine.h"

#include <memory>

#include "dist/activity.h"
#include "dist/stopwatch.h"

namespace mla::dist {

DecodeStats decode(const Communicator& comm, const Batch& batch, const Partition& partition,
                   const kernels::RankInputs& inputs, const kernels::Backend& backend,
                   const DecodeSettings& settings, const OnResults& on_results,
                   std::atomic<std::int64_t>* chunks_done) {
  DecodeStats stats;
  ResultBuilder results(batch, partition, comm.rank());
  const Stopwatch prepare_watch;
  std::unique_ptr<kernels::NodeDecoder> decoder;
  comm.together([&] {
    decoder =
        backend.make_decoder(batch, partition.pieces_of(comm.rank()), inputs, settings.compute);
  });
  stats.prepare_seconds = prepare_watch.seconds();

  enter(Phase::kCompute);
  const Stopwatch watch;
  const auto& open = decoder->run(results, chunks_done);
  stats.compute_seconds = watch.seconds();
  stats.combine =
      combine(comm, batch, partition, decoder->items(), open, settings.compute.threads, results);
  on_results(results.take());
  return stats;
}

}  // namespace mla::dist
