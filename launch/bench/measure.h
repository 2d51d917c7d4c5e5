#pragma once

#include <memory>
#include <span>
#include <vector>

#include "launch/bench/contender.h"

namespace mla::launch::bench {

/// Wall-clock seconds of each repeat.
struct Timing {
  std::vector<double> seconds;

  double median() const;
  double min() const;
  double max() const;
};

/// How often contenders run: at least `repeats` times and `seconds` long each.
struct RepeatPolicy {
  std::int64_t repeats = 5;
  double seconds = 0.3;
};

/// Runs the contenders in turn, round after round, so that a machine that slows down slows all of
/// them; the first round warms up and does not count. One timing for each, with as many repeats.
std::vector<Timing> measure(std::span<const std::unique_ptr<Contender>> contenders,
                            const RepeatPolicy& policy);

/// How many times as fast as `other` this was: the median over repeats that were paired.
double speed_ratio(const Timing& timing, const Timing& other);

}  // namespace mla::launch::bench
