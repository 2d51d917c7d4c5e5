#include "dist/mode_trials.h"

#include <algorithm>
#include <cstdio>
#include <memory>
#include <optional>
#include <span>
#include <utility>

#include "core/auto_mode.h"
#include "core/median.h"
#include "dist/made_up_tensors.h"
#include "dist/stopwatch.h"

namespace mla::dist {
namespace {

constexpr double kClose = 1.5;  // how far apart predictions may be and err
constexpr int kFewestRounds = 5;
constexpr int kMostRounds = 50;
constexpr double kShareOfJob = 0.03;
constexpr double kMostSeconds = 0.15;
constexpr double kPrepareSeconds = 0.03;  // of those: tensors, plans, windows

/// A mode, ready to be run.
class Attempt {
 public:
  /// Collective.
  Attempt(const Communicator& comm, const Batch& batch, Partition partition,
          const kernels::Backend& backend, const DecodeSettings& settings)
      : partition_(std::move(partition)) {
    comm.together([&] { tensors_.emplace(batch, partition_.pieces_of(comm.rank())); });
    decoder_.emplace(comm, batch, partition_, tensors_->inputs(), backend, settings);
  }

  /// Of one step on this rank. Collective.
  double seconds(const Communicator& comm) {
    comm.barrier();
    const Stopwatch watch;
    decoder_->run([](const std::vector<ResultSlice>&) {});
    return watch.seconds();
  }

 private:
  Partition partition_;
  std::optional<MadeUpTensors> tensors_;
  std::optional<Decoder> decoder_;
};

/// What is close enough to the fastest, and what each comes to.
struct Candidates {
  std::vector<ModeTrial> trials;
  std::vector<Partition> partitions;
};

Candidates close_candidates(const Batch& batch, int ranks, const CostModel& cost) {
  const std::vector<WeighedMode> modes = weigh_modes(batch, ranks, cost);
  double least = modes.front().cost;
  for (const WeighedMode& m : modes) least = std::min(least, m.cost);
  Candidates close;
  for (const WeighedMode& m : modes) {
    if (m.cost > kClose * least) continue;
    Partition partition = make_partition(batch, m.mode, ranks, cost);
    const auto is_same = [&](const Partition& other) { return same_work(partition, other); };
    if (std::any_of(close.partitions.begin(), close.partitions.end(), is_same)) continue;
    close.trials.push_back({.mode = m.mode, .predicted_seconds = m.cost / cost.flop_per_second});
    close.partitions.push_back(std::move(partition));
  }
  return close;
}

/// What rounds may take, all together; less than nothing if trying does not pay.
double seconds_for_rounds(const std::vector<ModeTrial>& trials, std::int64_t steps) {
  double least = trials.front().predicted_seconds;
  for (const ModeTrial& t : trials) least = std::min(least, t.predicted_seconds);
  const double job_seconds = least * static_cast<double>(steps);
  return std::min(kMostSeconds, kShareOfJob * job_seconds) - kPrepareSeconds;
}

}  // namespace

std::vector<double> seconds_in_turn(const Communicator& comm, std::size_t count,
                                    double enough_seconds,
                                    const std::function<double(std::size_t)>& run) {
  std::vector<std::vector<double>> slowest(count);
  std::vector<double> mine(count);
  std::vector<double> all(count * static_cast<std::size_t>(comm.size()));
  double spent = 0;
  for (int round = 0; round <= kMostRounds; ++round) {
    if (round > kFewestRounds && spent >= enough_seconds) break;
    for (std::size_t i = 0; i < count; ++i) {
      const std::size_t way = (static_cast<std::size_t>(round) + i) % count;
      mine[way] = run(way);
    }
    comm.all_gather(std::span<const double>(mine), std::span(all));
    for (std::size_t way = 0; way < count; ++way) {
      double seconds = 0;
      for (std::size_t i = way; i < all.size(); i += count) seconds = std::max(seconds, all[i]);
      spent += seconds;
      if (round > 0) slowest[way].push_back(seconds);
    }
  }
  std::vector<double> medians;
  for (std::vector<double>& seconds : slowest) medians.push_back(median(std::move(seconds)));
  return medians;
}

std::vector<ModeTrial> try_modes(const Communicator& comm, const Batch& batch,
                                 const kernels::Backend& backend, const DecodeSettings& settings,
                                 std::int64_t steps) {
  if (settings.cost.flop_per_second <= 0) return {};
  Candidates candidates = close_candidates(batch, comm.size(), settings.cost);
  std::vector<ModeTrial>& trials = candidates.trials;
  const double enough_seconds = seconds_for_rounds(trials, steps);
  double round_seconds = 0;
  for (const ModeTrial& t : trials) round_seconds += t.predicted_seconds;
  if (trials.size() == 1 || (1 + kFewestRounds) * round_seconds > enough_seconds) return {};
  std::vector<std::unique_ptr<Attempt>> attempts;
  for (Partition& partition : candidates.partitions) {
    attempts.push_back(
        std::make_unique<Attempt>(comm, batch, std::move(partition), backend, settings));
  }
  const std::vector<double> seconds =
      seconds_in_turn(comm, attempts.size(), enough_seconds,
                      [&](std::size_t i) { return attempts[i]->seconds(comm); });
  for (std::size_t i = 0; i < trials.size(); ++i) trials[i].seconds = seconds[i];
  return trials;
}

ShardMode fastest_mode(const std::vector<ModeTrial>& trials) {
  std::vector<WeighedMode> modes;
  for (const ModeTrial& t : trials) modes.push_back({t.mode, t.seconds});
  return preferred_mode(modes);
}

std::string to_string(const std::vector<ModeTrial>& trials) {
  std::string text;
  for (const ModeTrial& t : trials) {
    char numbers[64];
    std::snprintf(numbers, sizeof numbers, " %.3f (%.3f)", t.predicted_seconds * 1e3,
                  t.seconds * 1e3);
    text += (text.empty() ? "" : ", ") + mla::to_string(t.mode) + numbers;
  }
  return text;
}

}  // namespace mla::dist
