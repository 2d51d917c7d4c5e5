#pragma once

#include <atomic>
#include <cstdint>
#include <vector>

#include "core/split_plan.h"

namespace mla::kernels {

/// Hands the segments of a plan out to its threads: to each its own, in order, then the next one of
/// the thread that has most of them left. Threads are never equally fast, if only because other
/// programs run on their cores; no bit depends on who computes a segment. Allocates nothing but in
/// the constructor.
class SegmentQueue {
 public:
  /// The plan must outlive it.
  explicit SegmentQueue(const SplitPlan& plan);

  /// All segments are to be computed again. No other call may run at the same time.
  void reset();
  /// The next segment for `thread`, below plan.threads(); -1 if there is none.
  std::int64_t next(int thread);
  /// Takes `segment` if it is the next one of its share, the thread `owner`'s.
  bool take_next(int owner, std::int64_t segment);

 private:
  std::int64_t left(int thread) const;
  std::int64_t take(int thread);

  const SplitPlan& plan_;
  std::vector<std::atomic<std::int64_t>> next_;  // of each thread's segments; may run past the end
};

}  // namespace mla::kernels
