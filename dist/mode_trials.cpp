#include "dist/mode_trials.h"

#include <algorithm>
#include <cstdio>
#include <memory>
#include <numeric>
#include <optional>
#include <span>
#include <utility>

#include "core/auto_mode.h"
#include "core/median.h"
#include "dist/made_up_tensors.h"
#include "dist/stopwatch.h"

namespace mla::dist {
namespace {

constexpr double kClose = 3;  // what predictions may be wrong by, one against another
constexpr int kFewestRounds = 5;
constexpr int kMostRounds = 50;
constexpr double kShareOfJob = 0.03;
constexpr double kMostSeconds = 0.25;
constexpr double kPrepareSeconds = 0.03;  // of those: tensors, plans, windows

/// A mode that is worth trying.
struct Candidate {
  std::size_t place = 0;  // in the order of preference
  ModeTrial trial;
  Partition partition;
};

/// What rounds may take for a job of so many steps; less than nothing if trying does not pay.
double seconds_for_rounds(double step_seconds, std::int64_t steps) {
  const double job_seconds = step_seconds * static_cast<double>(steps);
  return std::min(kMostSeconds, kShareOfJob * job_seconds) - kPrepareSeconds;
}

/// Those that are close to the fastest, which come first, as far as there is time for the fewest
/// rounds; then in order of preference.
std::vector<Candidate> find_candidates(const Batch& batch, int ranks, const CostModel& cost,
                                       std::int64_t steps) {
  std::vector<WeighedMode> modes = weigh_modes(batch, ranks, cost);
  std::vector<std::size_t> by_cost(modes.size());
  std::iota(by_cost.begin(), by_cost.end(), 0);
  std::stable_sort(by_cost.begin(), by_cost.end(),
                   [&](std::size_t a, std::size_t b) { return modes[a].cost < modes[b].cost; });
  const double least = modes[by_cost.front()].cost / cost.flop_per_second;
  const double enough_seconds = seconds_for_rounds(least, steps);
  std::vector<Candidate> found;
  double together = 0;
  for (const std::size_t place : by_cost) {
    const double seconds = modes[place].cost / cost.flop_per_second;
    if (seconds > kClose * least || 2 * kFewestRounds * (together + seconds) > enough_seconds)
      break;
    Partition& partition = modes[place].partition;
    const auto is_same = [&](const Candidate& c) { return same_work(c.partition, partition); };
    if (std::any_of(found.begin(), found.end(), is_same)) continue;
    together += seconds;
    found.push_back(
        {place, {.mode = partition.mode, .predicted_seconds = seconds}, std::move(partition)});
  }
  std::sort(found.begin(), found.end(),
            [](const Candidate& a, const Candidate& b) { return a.place < b.place; });
  return found;
}

/// A mode, ready to be run.
class Attempt {
 public:
  /// Collective. The arguments must outlive it.
  Attempt(const Communicator& comm, const Batch& batch, const Partition& partition,
          const kernels::Backend& backend, const DecodeSettings& settings)
      : comm_(comm) {
    comm.together([&] { tensors_.emplace(batch, partition.pieces_of(comm.rank())); });
    decoder_.emplace(comm, batch, partition, tensors_->inputs(), backend, settings);
  }

  /// Of one step on this rank. Collective.
  double seconds() {
    comm_.barrier();
    const Stopwatch watch;
    decoder_->run([](const std::vector<ResultSlice>&) {});
    return watch.seconds();
  }

 private:
  const Communicator& comm_;
  std::optional<MadeUpTensors> tensors_;
  std::optional<Decoder> decoder_;
};

}  // namespace

std::vector<double> seconds_in_turn(const Communicator& comm, std::size_t count,
                                    double enough_seconds,
                                    const std::function<double(std::size_t)>& run) {
  std::vector<std::vector<double>> slowest(count);
  std::vector<double> mine(count);
  std::vector<double> all(count * static_cast<std::size_t>(comm.size()));
  double spent = 0;
  for (int round = 0; round < kMostRounds; ++round) {
    if (round >= kFewestRounds && spent >= enough_seconds) break;
    for (std::size_t i = 0; i < count; ++i) {
      const std::size_t way = (static_cast<std::size_t>(round) + i) % count;
      run(way);
      mine[way] = run(way);
    }
    comm.all_gather(std::span<const double>(mine), std::span(all));
    for (std::size_t way = 0; way < count; ++way) {
      double seconds = 0;
      for (std::size_t i = way; i < all.size(); i += count) seconds = std::max(seconds, all[i]);
      slowest[way].push_back(seconds);
      spent += 2 * seconds;
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
  const auto candidates = find_candidates(batch, comm.size(), settings.cost, steps);
  if (candidates.size() < 2) return {};
  std::vector<std::unique_ptr<Attempt>> attempts;
  std::vector<ModeTrial> trials;
  double least = candidates.front().trial.predicted_seconds;
  for (const Candidate& c : candidates) {
    attempts.push_back(std::make_unique<Attempt>(comm, batch, c.partition, backend, settings));
    trials.push_back(c.trial);
    least = std::min(least, c.trial.predicted_seconds);
  }
  const std::vector<double> seconds =
      seconds_in_turn(comm, attempts.size(), seconds_for_rounds(least, steps),
                      [&](std::size_t i) { return attempts[i]->seconds(); });
  for (std::size_t i = 0; i < trials.size(); ++i) trials[i].seconds = seconds[i];
  return trials;
}

ShardMode fastest_mode(const std::vector<ModeTrial>& trials) {
  std::vector<double> seconds;
  for (const ModeTrial& t : trials) seconds.push_back(t.seconds);
  return trials[preferred_mode(seconds)].mode;
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
