#include <algorithm>
#include <cstdio>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include <fmt/format.h>

#include "core/calibration.h"
#include "core/median.h"
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

/// One mode and exchange, ready to be run. What it refers to must outlive it.
class Candidate {
 public:
  Candidate(const dist::Communicator& comm, const Batch& batch, const kernels::Backend& backend,
            const std::string& mode, const dist::DecodeSettings& settings)
      : partition_(
            make_partition(batch, parse_shard_mode(mode, comm.size()), comm.size(), settings.cost)),
        predicted_ms_(
            predicted_cost(batch, loads_of(batch, partition_, settings.cost), settings.cost)
                .total() /
            settings.cost.flop_per_second * 1e3),
        mode_(mode),
        data_(batch, {}, partition_.pieces_of(comm.rank()), settings.compute.threads),
        inputs_(launch::rank_inputs(data_, partition_.pieces_of(comm.rank()))),
        decoder_(comm, batch, partition_, inputs_, backend, settings) {}

  const std::string& mode() const { return mode_; }
  const Partition& partition() const { return partition_; }
  double median_ms() const { return median_of(steps_).step; }
  void forget_steps() { steps_.clear(); }

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
        ranks, options.threads, batch.requests.size(), mode_, to_string(decoder_.exchange()),
        options.combines.front(), predicted_ms_, t.step, t.compute, t.exchange, t.wait, t.merge,
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

constexpr std::string_view kAuto = "auto";
constexpr std::int64_t kForEver = 1'000'000;  // steps

/// What mode auto took in a round, and how much slower that was than the best fixed mode.
struct Judgement {
  std::string taken;
  std::string best;
  double excess = 0;
};

/// All modes and exchanges of one batch.
class Contest {
 public:
  Contest(const dist::Communicator& comm, const Batch& batch, const RankBenchOptions& options)
      : comm_(comm),
        batch_(batch),
        options_(options),
        backend_(kernels::find_backend(options.backend, batch)),
        settings_{
            .compute = {.threads = options.threads, .exact = options.combines.front() == "exact"},
            .pretended_ranks_per_node = options.pretended_ranks_per_node},
        modes_(options.modes),
        judges_auto_(std::erase(modes_, kAuto) > 0) {}

  /// Calibrates, lets auto choose, and runs all in turn, each repeat beginning with another one.
  /// Mode auto is not run beside the mode that it takes. Collective.
  Judgement run_round() {
    settings_.cost = model_of_steps(comm_, batch_, backend_, settings_);
    Judgement judgement;
    if (judges_auto_) {
      judgement.taken = to_string(taken_by_auto());
      if (std::count(modes_.begin(), modes_.end(), judgement.taken) == 0) {
        modes_.push_back(judgement.taken);
      }
    }
    make_candidates();
    for (int repeat = 0; repeat < options_.repeats; ++repeat) {
      for (std::size_t i = 0; i < candidates_.size(); ++i) {
        candidates_[(static_cast<std::size_t>(repeat) + i) % candidates_.size()]->step(comm_);
      }
    }
    judge(judgement);
    return judgement;
  }

  bool judges_auto() const { return judges_auto_; }

 private:
  /// By trial, as for a batch that is decoded for ever; by the model where nothing was tried.
  ShardMode taken_by_auto() const {
    const auto trials = dist::try_modes(comm_, batch_, backend_, settings_, kForEver);
    if (!trials.empty()) {
      if (comm_.rank() == 0) fmt::print("tried: {}\n", dist::to_string(trials));
      return dist::fastest_mode(trials);
    }
    const ShardMode any{.kind = ShardMode::Kind::kAuto};
    return make_partition(batch_, any, comm_.size(), settings_.cost).mode;
  }

  /// Those that there are not yet; the others begin anew.
  void make_candidates() {
    for (const auto& candidate : candidates_) candidate->forget_steps();
    for (std::size_t m = candidates_.size() / options_.exchanges.size(); m < modes_.size(); ++m) {
      for (const std::string& exchange : options_.exchanges) {
        settings_.exchange = dist::parse_exchange(exchange);
        candidates_.push_back(
            std::make_unique<Candidate>(comm_, batch_, backend_, modes_[m], settings_));
      }
    }
  }

  /// Modes that come to the same plan count as one, whichever of them was faster.
  void judge(Judgement& judgement) const {
    const auto is_taken = [&](const auto& candidate) {
      return candidate->mode() == judgement.taken;
    };
    const auto auto_one = std::find_if(candidates_.begin(), candidates_.end(), is_taken);
    double best = std::numeric_limits<double>::infinity();
    double taken = best;
    for (const auto& candidate : candidates_) {
      if (comm_.rank() == 0) candidate->print(batch_, comm_.size(), options_);
      const double ms = candidate->median_ms();
      if (auto_one != candidates_.end() &&
          same_work(candidate->partition(), (*auto_one)->partition())) {
        taken = std::min(taken, ms);
      }
      if (ms < best) judgement.best = candidate->mode();
      best = std::min(best, ms);
    }
    judgement.excess = taken / best - 1;
  }

  const dist::Communicator& comm_;
  const Batch& batch_;
  const RankBenchOptions& options_;
  const kernels::Backend& backend_;
  dist::DecodeSettings settings_;
  std::vector<std::string> modes_;
  bool judges_auto_;
  std::vector<std::unique_ptr<Candidate>> candidates_;  // [modes, exchanges]
};

void print(const Batch& batch, int ranks, const std::vector<Judgement>& rounds) {
  std::vector<double> excesses;
  fmt::print("auto: {} ranks, {} heads, {} request(s) of {}:", ranks, batch.shape.h_q,
             batch.requests.size(), batch.requests.front().context_len);
  for (const Judgement& j : rounds) {
    fmt::print(" {} ({}) {:+.1f} %,", j.taken, j.best, j.excess * 100);
    excesses.push_back(j.excess);
  }
  fmt::print(" median {:+.1f} %\n", median(std::move(excesses)) * 100);
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
    Contest contest(comm, batch, options);
    std::vector<Judgement> rounds;
    for (int round = 0; round < options.rounds; ++round) rounds.push_back(contest.run_round());
    if (comm.rank() != 0) continue;
    if (contest.judges_auto()) print(batch, comm.size(), rounds);
    std::fflush(stdout);
  }
}

}  // namespace mla::bench
