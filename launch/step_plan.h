#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/batch.h"

namespace mla::launch {

/// A step is expected to take up to so many times what the one before says.
inline constexpr double kSpareTime = 1.25;

/// Cuts a job into steps, runs of requests that are decoded one after the other, so that it can
/// stop between them. Steps grow until they take about as long as wished. A pure function of what
/// it is told: ranks that tell it the same cut the same.
class StepPlan {
 public:
  /// `requests` are positions in the batch, in ascending order; `threads` compute, on `ranks`
  /// ranks.
  StepPlan(const Batch& batch, std::vector<std::int64_t> requests, int ranks, int threads,
           double seconds_per_step);

  /// The requests of the next step. `last_seconds` is what the last one took, on the slowest rank.
  /// None if all are done, or if even the smallest step would take longer than `seconds_left`.
  std::span<const std::int64_t> next(double last_seconds, double seconds_left);

  /// Requests that no step has had yet.
  std::int64_t requests_left() const { return static_cast<std::int64_t>(requests_.size()) - end_; }
  /// The share of all work that the steps so far had.
  double share_begun() const { return total_ > 0 ? begun_ / total_ : 1; }

 private:
  std::vector<std::int64_t> requests_;
  std::vector<double> costs_;  // FLOP-equivalents of each of them
  int ranks_;
  double seconds_per_step_;
  double total_ = 0;
  double begun_ = 0;      // cost of the steps so far
  double last_cost_ = 0;  // of the last step; before the first one, what it may cost
  std::int64_t end_ = 0;  // of the last step
};

}  // namespace mla::launch
