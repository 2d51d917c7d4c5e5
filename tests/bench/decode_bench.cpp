#include <algorithm>
#include <cstdio>

#include <fmt/format.h>
#include <omp.h>

#include "core/partition.h"
#include "dist/engine.h"
#include "dist/stopwatch.h"
#include "kernels/backend.h"
#include "launch/rank_inputs.h"
#include "proto/shard_data.h"
#include "tests/bench/rank_bench.h"

namespace mla::bench {
namespace {

/// Milliseconds of one step; each the largest over ranks.
struct StepTimes {
  double step = 0;
  double compute = 0;
  double exchange = 0;
  double wait = 0;
  double merge = 0;
};

StepTimes run_step(const dist::Communicator& comm, dist::Decoder& decoder) {
  comm.barrier();
  const dist::Stopwatch watch;
  const dist::DecodeStats stats = decoder.run([](const std::vector<ResultSlice>&) {});
  const StepTimes mine{watch.seconds(), stats.compute_seconds, stats.combine.exchange_seconds,
                       stats.combine.wait_seconds, stats.combine.merge_seconds};
  StepTimes slowest;
  for (const StepTimes& rank : comm.all_gather(mine)) {
    slowest.step = std::max(slowest.step, rank.step * 1e3);
    slowest.compute = std::max(slowest.compute, rank.compute * 1e3);
    slowest.exchange = std::max(slowest.exchange, rank.exchange * 1e3);
    slowest.wait = std::max(slowest.wait, rank.wait * 1e3);
    slowest.merge = std::max(slowest.merge, rank.merge * 1e3);
  }
  return slowest;
}

/// The step of median length.
StepTimes median_step(const dist::Communicator& comm, dist::Decoder& decoder, int repeats) {
  run_step(comm, decoder);  // warms up
  std::vector<StepTimes> steps;
  for (int repeat = 0; repeat < repeats; ++repeat) steps.push_back(run_step(comm, decoder));
  const auto middle = steps.begin() + repeats / 2;
  std::nth_element(steps.begin(), middle, steps.end(),
                   [](const StepTimes& a, const StepTimes& b) { return a.step < b.step; });
  return *middle;
}

double flop_of(const Batch& batch) {
  double tokens = 0;
  for (const Request& r : batch.requests) tokens += static_cast<double>(r.context_len);
  return tokens * static_cast<double>(2 * batch.shape.h_q * (batch.shape.d_qk + batch.shape.d_v));
}

}  // namespace

void bench_decode(const dist::Communicator& comm, const RankBenchOptions& options) {
  if (comm.rank() == 0) {
    fmt::print("{:>6} {:>8} {:>9} {:>10} {:>10} {:>8} {:>9} {:>9} {:>9} {:>9} {:>9} {:>7}\n",
               "ranks", "threads", "requests", "mode", "exchange", "combine", "step ms", "compute",
               "exchange", "wait", "merge", "TFLOP/s");
  }
  for (const std::int64_t requests : options.requests) {
    const Batch batch = make_bench_batch(options, requests, false);
    const kernels::Backend& backend = kernels::find_backend(options.backend, batch);
    const Partition partition =
        make_partition(batch, parse_shard_mode(options.mode, comm.size()), comm.size());
    const auto pieces = partition.pieces_of(comm.rank());
    const proto::ShardData data(batch, {}, pieces, options.threads);
    const kernels::RankInputs inputs = launch::rank_inputs(data, pieces);
    for (const std::string& exchange : options.exchanges) {
      const dist::DecodeSettings settings{
          .compute = {.threads = options.threads, .exact = options.combine == "exact"},
          .exchange = dist::parse_exchange(exchange),
          .pretended_ranks_per_node = options.pretended_ranks_per_node};
      dist::Decoder decoder(comm, batch, partition, inputs, backend, settings);
      const StepTimes t = median_step(comm, decoder, options.repeats);
      if (comm.rank() != 0) continue;
      fmt::print(
          "{:>6} {:>8} {:>9} {:>10} {:>10} {:>8} {:>9.3f} {:>9.3f} {:>9.3f} {:>9.3f} {:>9.3f} "
          "{:>7.2f}\n",
          comm.size(), options.threads, requests, to_string(partition.mode),
          to_string(decoder.exchange()), options.combine, t.step, t.compute, t.exchange, t.wait,
          t.merge, flop_of(batch) / t.step * 1e-9);
      std::fflush(stdout);
    }
  }
}

}  // namespace mla::bench
