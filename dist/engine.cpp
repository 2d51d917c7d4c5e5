#include "dist/engine.h"

#include "core/split_plan.h"
#include "dist/stopwatch.h"

namespace mla::dist {

std::vector<ResultSlice> decode(const Communicator& comm, const Batch& batch,
                                const Partition& partition, const kernels::RankInputs& inputs,
                                const kernels::Backend& backend, int threads, DecodeStats& stats,
                                std::atomic<std::int64_t>* chunks_done) {
  const SplitPlan plan = make_split_plan(batch, partition.pieces_of(comm.rank()), threads);
  ResultBuilder results(batch, partition, comm.rank());
  kernels::LocalDecoder decoder(batch, plan, backend);

  const Stopwatch watch;
  const auto& open = decoder.run(inputs, results, chunks_done);
  stats.compute_seconds = watch.seconds();
  stats.combine = combine(comm, batch, partition, plan, open, threads, results);
  return results.take();
}

}  // namespace mla::dist
