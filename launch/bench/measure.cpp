#include "launch/bench/measure.h"

#include <algorithm>
#include <chrono>
#include <thread>

#include "core/median.h"
#include "dist/stopwatch.h"

namespace mla::launch::bench {
namespace {

constexpr std::int64_t kMostRounds = 1000;
constexpr std::int64_t kMostPairedRounds = 25;

// Libraries keep their idle threads spinning for some milliseconds, which would slow the next one;
// then its own threads sleep, and when they wake the system needs a while to spread them over
// cores.
constexpr auto kSettling = std::chrono::milliseconds(30);
constexpr double kWaking = 0.01;

double timed_run(Contender& contender) {
  contender.prepare();
  return contender.timed_run();
}

/// Lets the threads of other contenders fall asleep and those of this one wake up.
void wake(Contender& contender) {
  std::this_thread::sleep_for(kSettling);
  const dist::Stopwatch watch;
  while (watch.seconds() < kWaking) timed_run(contender);
}

}  // namespace

double Timing::median() const {
  return mla::median(seconds);
}

double Timing::min() const {
  return *std::min_element(seconds.begin(), seconds.end());
}

double Timing::max() const {
  return *std::max_element(seconds.begin(), seconds.end());
}

std::vector<Timing> measure(std::span<const std::unique_ptr<Contender>> contenders,
                            const RepeatPolicy& policy) {
  const bool paired = contenders.size() > 1;
  const std::int64_t most = std::max(policy.repeats, paired ? kMostPairedRounds : kMostRounds);
  const double enough = policy.seconds * static_cast<double>(contenders.size());
  std::vector<Timing> timings(contenders.size());
  double total = 0;
  for (std::int64_t round = -1; round < most; ++round) {
    if (round >= policy.repeats && total >= enough) break;
    for (std::size_t i = 0; i < contenders.size(); ++i) {
      if (paired) wake(*contenders[i]);
      const double seconds = timed_run(*contenders[i]);
      if (round < 0) continue;
      timings[i].seconds.push_back(seconds);
      total += seconds;
    }
  }
  return timings;
}

double speed_ratio(const Timing& timing, const Timing& other) {
  std::vector<double> ratios;
  for (std::size_t i = 0; i < timing.seconds.size(); ++i) {
    ratios.push_back(other.seconds[i] / timing.seconds[i]);
  }
  return median(std::move(ratios));
}

}  // namespace mla::launch::bench
