#include <algorithm>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <omp.h>

#include "core/calibration.h"
#include "core/partition.h"
#include "dist/calibrate.h"
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
StepTimes median_of(std::vector<StepTimes> steps) {
  const auto middle = steps.begin() + static_cast<std::ptrdiff_t>(steps.size() / 2);
  std::nth_element(steps.begin(), middle, steps.end(),
                   [](const StepTimes& a, const StepTimes& b) { return a.step < b.step; });
  return *middle;
}

double flop_of(const Batch& batch) {
  double tokens = 0;
  for (const Request& r : batch.requests) tokens += static_cast<double>(r.context_len);
  return tokens * static_cast<double>(2 * batch.shape.h_q * (batch.shape.d_qk + batch.shape.d_v));
}

/// One mode and exchange, ready to be run. What it refers to must outlive it.
class Candidate {
 public:
  Candidate(const dist::Communicator& comm, const Batch& batch, const kernels::Backend& backend,
            std::string_view mode, const dist::DecodeSettings& settings)
      : partition_(
            make_partition(batch, parse_shard_mode(mode, comm.size()), comm.size(), settings.cost)),
        predicted_ms_(
            predicted_cost(batch, loads_of(batch, partition_, settings.cost), settings.cost)
                .total() /
            settings.cost.flop_per_second * 1e3),
        mode_(mode == "auto" ? "auto=" + to_string(partition_.mode) : mode),
        data_(batch, {}, partition_.pieces_of(comm.rank()), settings.compute.threads),
        inputs_(launch::rank_inputs(data_, partition_.pieces_of(comm.rank()))),
        decoder_(comm, batch, partition_, inputs_, backend, settings) {
    run_step(comm, decoder_);  // warms up
  }

  void step(const dist::Communicator& comm) { steps_.push_back(run_step(comm, decoder_)); }

  void print(const Batch& batch, int ranks, const RankBenchOptions& options) const {
    const StepTimes t = median_of(steps_);
    fmt::print(
        "{:>6} {:>8} {:>9} {:>10} {:>10} {:>8} {:>9.3f} {:>9.3f} {:>9.3f} {:>9.3f} {:>9.3f} "
        "{:>9.3f} {:>7.2f}\n",
        ranks, options.threads, batch.requests.size(), mode_, to_string(decoder_.exchange()),
        options.combine, predicted_ms_, t.step, t.compute, t.exchange, t.wait, t.merge,
        flop_of(batch) / t.step * 1e-9);
  }

 private:
  Partition partition_;
  double predicted_ms_;
  std::string mode_;
  proto::ShardData data_;
  kernels::RankInputs inputs_;
  dist::Decoder decoder_;
  std::vector<StepTimes> steps_;
};

/// What decides in mode auto, of steps over a cache that is there. Collective.
CostModel model_of_steps(const dist::Communicator& comm, const Batch& batch,
                         const kernels::Backend& backend, const dist::DecodeSettings& settings) {
  CostModel cost = calibrated_model(dist::calibrate(comm, batch, backend, settings, 0));
  cost.flop_per_loaded_byte = 0;
  return cost;
}

}  // namespace

void bench_decode(const dist::Communicator& comm, const RankBenchOptions& options) {
  if (comm.rank() == 0) {
    fmt::print("{:>6} {:>8} {:>9} {:>10} {:>10} {:>8} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>7}\n",
               "ranks", "threads", "requests", "mode", "exchange", "combine", "predicted",
               "step ms", "compute", "exchange", "wait", "merge", "TFLOP/s");
  }
  for (const std::int64_t requests : options.requests) {
    const Batch batch = make_bench_batch(options, requests, false);
    const kernels::Backend& backend = kernels::find_backend(options.backend, batch);
    dist::DecodeSettings settings{
        .compute = {.threads = options.threads, .exact = options.combine == "exact"},
        .pretended_ranks_per_node = options.pretended_ranks_per_node};
    settings.cost = model_of_steps(comm, batch, backend, settings);
    std::vector<std::unique_ptr<Candidate>> candidates;
    for (const std::string& mode : options.modes) {
      for (const std::string& exchange : options.exchanges) {
        settings.exchange = dist::parse_exchange(exchange);
        candidates.push_back(std::make_unique<Candidate>(comm, batch, backend, mode, settings));
      }
    }
    // In turn, as machines change their speed.
    for (int repeat = 0; repeat < options.repeats; ++repeat) {
      for (const auto& candidate : candidates) candidate->step(comm);
    }
    if (comm.rank() != 0) continue;
    for (const auto& candidate : candidates) candidate->print(batch, comm.size(), options);
    std::fflush(stdout);
  }
}

}  // namespace mla::bench
