#include "kernels/segment_queue.h"

namespace mla::kernels {

SegmentQueue::SegmentQueue(const SplitPlan& plan)
    : plan_(plan), next_(static_cast<std::size_t>(plan.threads())) {
  reset();
}

void SegmentQueue::reset() {
  for (std::size_t thread = 0; thread < next_.size(); ++thread) {
    next_[thread] = plan_.thread_offsets[thread];
  }
}

std::int64_t SegmentQueue::next(int thread) {
  std::int64_t segment = take(thread);
  while (segment < 0) {
    int richest = thread;
    for (int other = 0; other < plan_.threads(); ++other) {
      if (left(other) > left(richest)) richest = other;
    }
    if (left(richest) <= 0) return -1;
    segment = take(richest);
  }
  return segment;
}

bool SegmentQueue::take_next(int owner, std::int64_t segment) {
  return next_[owner].compare_exchange_strong(segment, segment + 1, std::memory_order_relaxed);
}

std::int64_t SegmentQueue::left(int thread) const {
  return plan_.thread_offsets[thread + 1] - next_[thread].load(std::memory_order_relaxed);
}

std::int64_t SegmentQueue::take(int thread) {
  const std::int64_t segment = next_[thread].fetch_add(1, std::memory_order_relaxed);
  return segment < plan_.thread_offsets[thread + 1] ? segment : -1;
}

}  // namespace mla::kernels
