#include <algorithm>
#include <cstdio>
#include <limits>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "core/calibration.h"
#include "core/partition.h"
#include "dist/calibrate.h"
#include "dist/engine.h"
#include "dist/mode_trials.h"
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

/// A plan and exchange, ready to be run. What it refers to must outlive it.
class Candidate {
 public:
  Candidate(const dist::Communicator& comm, const Batch& batch, Partition partition,
            const kernels::Backend& backend, const dist::DecodeSettings& settings)
      : partition_(std::move(partition)),
        names_(to_string(partition_.mode)),
        predicted_ms_(
            predicted_cost(batch, loads_of(batch, partition_, settings.cost), settings.cost)
                .total() /
            settings.cost.flop_per_second * 1e3),
        data_(batch, {}, partition_.pieces_of(comm.rank()), settings.compute.threads),
        inputs_(launch::rank_inputs(data_, partition_.pieces_of(comm.rank()))),
        decoder_(comm, batch, partition_, inputs_, backend, settings) {}

  const Partition& partition() const { return partition_; }
  /// Of the modes that come to it.
  const std::string& names() const { return names_; }
  void add_name(const ShardMode& mode) { names_ += fmt::format("={}", to_string(mode)); }
  const std::vector<StepTimes>& steps() const { return steps_; }

  /// One of two steps counts: the first finds the caches full of what others left.
  void step(const dist::Communicator& comm) {
    run_step(comm, decoder_);
    steps_.push_back(run_step(comm, decoder_));
  }

  void print(const Batch& batch, int ranks, const RankBenchOptions& options) const {
    const StepTimes t = median_of(steps_);
    fmt::print(
        "{:>6} {:>8} {:>9} {:>10} {:>10} {:>8} {:>9.3f} {:>9.3f} {:>9.3f} {:>9.3f} {:>9.3f} "
        "{:>9.3f} {:>7.2f}\n",
        ranks, options.threads, batch.requests.size(), names_, to_string(decoder_.exchange()),
        options.combines.front(), predicted_ms_, t.step, t.compute, t.exchange, t.wait, t.merge,
        flop_of(batch) / t.step * 1e-9);
  }

 private:
  Partition partition_;
  std::string names_;
  double predicted_ms_;
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

constexpr std::string_view kAuto = "auto";
constexpr std::int64_t kForEver = 1'000'000;  // steps

/// All modes and exchanges of one batch. Modes that come to the same work on all ranks are one
/// plan, as the first round's calibration cuts them.
class Contest {
 public:
  Contest(const dist::Communicator& comm, const Batch& batch, const RankBenchOptions& options)
      : comm_(comm),
        batch_(batch),
        options_(options),
        backend_(kernels::find_backend(options.backend, batch)),
        settings_{
            .compute = {.threads = options.threads, .exact = options.combines.front() == "exact"},
            .pretended_ranks_per_node = options.pretended_ranks_per_node} {}

  /// Calibrates, lets auto choose, and runs all in turn, each repeat beginning with another one.
  /// Collective.
  void run_round() {
    settings_.exchange = dist::parse_exchange(options_.exchanges.front());
    settings_.cost = model_of_steps(comm_, batch_, backend_, settings_);
    if (fixed_.empty()) add_fixed_modes();
    const Candidate* const taken = has_auto() ? &taken_by_auto() : nullptr;
    std::vector<Candidate*> all;
    for (const auto* some : {&fixed_, &others_}) {
      for (const auto& candidate : *some) all.push_back(candidate.get());
    }
    for (std::size_t repeat = 0; repeat < static_cast<std::size_t>(options_.repeats); ++repeat) {
      for (std::size_t i = 0; i < all.size(); ++i) all[(repeat + i) % all.size()]->step(comm_);
    }
    if (taken == nullptr) return;
    const std::vector<StepTimes> steps(taken->steps().end() - options_.repeats,
                                       taken->steps().end());
    taken_ += fmt::format(" {} {:.3f},", taken->names(), median_of(steps).step);
    auto_steps_.insert(auto_steps_.end(), steps.begin(), steps.end());
  }

  /// The median steps of all rounds, and how much longer auto's is than the best fixed mode's.
  /// Rank 0 alone.
  void print() const {
    const Candidate* best = nullptr;
    double best_ms = std::numeric_limits<double>::infinity();
    for (const auto& candidate : fixed_) {
      candidate->print(batch_, comm_.size(), options_);
      const double ms = median_of(candidate->steps()).step;
      if (ms >= best_ms) continue;
      best_ms = ms;
      best = candidate.get();
    }
    if (best == nullptr || !has_auto()) return;
    const double ms = median_of(auto_steps_).step;
    fmt::print(
        "auto: {} ranks, {} heads, {} request(s) of {}: took{} in all {:.3f} ms, {:.3f} of {}, "
        "{:+.1f} %\n",
        comm_.size(), batch_.shape.h_q, batch_.requests.size(), batch_.requests.front().context_len,
        taken_, ms, best_ms, best->names(), (ms / best_ms - 1) * 100);
  }

 private:
  using Candidates = std::vector<std::unique_ptr<Candidate>>;

  bool has_auto() const {
    return std::count(options_.modes.begin(), options_.modes.end(), kAuto) > 0;
  }

  static Candidate* find(const Candidates& candidates, const Partition& plan) {
    for (const auto& candidate : candidates) {
      if (same_work(candidate->partition(), plan)) return candidate.get();
    }
    return nullptr;
  }

  void add_fixed_modes() {
    for (const std::string& name : options_.modes) {
      if (name == kAuto) continue;
      const ShardMode mode = parse_shard_mode(name, comm_.size());
      Partition plan = make_partition(batch_, mode, comm_.size(), settings_.cost);
      if (Candidate* const same = find(fixed_, plan)) {
        same->add_name(mode);
        continue;
      }
      for (const std::string& exchange : options_.exchanges) {
        settings_.exchange = dist::parse_exchange(exchange);
        fixed_.push_back(std::make_unique<Candidate>(comm_, batch_, plan, backend_, settings_));
      }
    }
    settings_.exchange = dist::parse_exchange(options_.exchanges.front());
  }

  /// By trial, as for a batch that is decoded for ever; by the model where nothing was tried.
  const Candidate& taken_by_auto() {
    const auto trials = dist::try_modes(comm_, batch_, backend_, settings_, kForEver);
    if (comm_.rank() == 0 && !trials.empty()) fmt::print("tried: {}\n", dist::to_string(trials));
    const ShardMode mode =
        trials.empty() ? ShardMode{.kind = ShardMode::Kind::kAuto} : dist::fastest_mode(trials);
    Partition plan = make_partition(batch_, mode, comm_.size(), settings_.cost);
    if (const Candidate* const same = find(fixed_, plan)) return *same;
    if (const Candidate* const same = find(others_, plan)) return *same;
    others_.push_back(
        std::make_unique<Candidate>(comm_, batch_, std::move(plan), backend_, settings_));
    return *others_.back();
  }

  const dist::Communicator& comm_;
  const Batch& batch_;
  const RankBenchOptions& options_;
  const kernels::Backend& backend_;
  dist::DecodeSettings settings_;
  Candidates fixed_;   // [plans, exchanges] of the modes asked for
  Candidates others_;  // that auto took beside them
  std::vector<StepTimes> auto_steps_;
  std::string taken_;  // by auto in each round, with milliseconds
};

}  // namespace

void bench_decode(const dist::Communicator& comm, const RankBenchOptions& options) {
  if (comm.rank() == 0) {
    fmt::print("{:>6} {:>8} {:>9} {:>10} {:>10} {:>8} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>7}\n",
               "ranks", "threads", "requests", "mode", "exchange", "combine", "predicted",
               "step ms", "compute", "exchange", "wait", "merge", "TFLOP/s");
  }
  for (const std::int64_t requests : options.requests) {
    const Batch batch = make_bench_batch(options, requests, false);
    Contest contest(comm, batch, options);
    for (int round = 0; round < options.rounds; ++round) contest.run_round();
    if (comm.rank() != 0) continue;
    contest.print();
    std::fflush(stdout);
  }
}

}  // namespace mla::bench
