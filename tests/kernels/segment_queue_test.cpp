#include "kernels/segment_queue.h"

#include <thread>
#include <vector>

#include <gtest/gtest.h>

namespace mla::test {
namespace {

/// A plan of which only the number of segments of each thread is known.
SplitPlan plan_of(std::initializer_list<std::int64_t> segments) {
  SplitPlan plan;
  plan.thread_offsets = {0};
  for (const std::int64_t count : segments) {
    plan.thread_offsets.push_back(plan.thread_offsets.back() + count);
  }
  return plan;
}

TEST(SegmentQueue, GivesThreadsTheirOwnSegmentsInOrder) {
  const SplitPlan plan = plan_of({2, 3});
  kernels::SegmentQueue queue(plan);
  EXPECT_EQ(queue.next(1), 2);
  EXPECT_EQ(queue.next(0), 0);
  EXPECT_EQ(queue.next(1), 3);
  EXPECT_EQ(queue.next(0), 1);
  EXPECT_EQ(queue.next(1), 4);
  EXPECT_EQ(queue.next(0), -1);
  EXPECT_EQ(queue.next(1), -1);
}

TEST(SegmentQueue, ThenTakesFromWhoHasMostLeft) {
  const SplitPlan plan = plan_of({1, 2, 3, 0});
  kernels::SegmentQueue queue(plan);
  EXPECT_EQ(queue.next(3), 3);
  EXPECT_EQ(queue.next(3), 1);
  EXPECT_EQ(queue.next(2), 4);
  EXPECT_EQ(queue.next(2), 5);
  EXPECT_EQ(queue.next(2), 0);
  EXPECT_EQ(queue.next(0), 2);
  EXPECT_EQ(queue.next(0), -1);
}

TEST(SegmentQueue, LetsAThreadGoOnWhereNobodyElseHasTaken) {
  const SplitPlan plan = plan_of({4, 1});
  kernels::SegmentQueue queue(plan);
  EXPECT_EQ(queue.next(0), 0);
  EXPECT_TRUE(queue.take_next(0, 1));
  EXPECT_FALSE(queue.take_next(0, 1));
  EXPECT_EQ(queue.next(1), 4);
  EXPECT_EQ(queue.next(1), 2);
  EXPECT_FALSE(queue.take_next(0, 2));
  EXPECT_TRUE(queue.take_next(0, 3));
  EXPECT_EQ(queue.next(0), -1);
}

TEST(SegmentQueue, HandsOutEverySegmentOnceInEachRound) {
  const SplitPlan plan = plan_of({500, 0, 7, 300});
  kernels::SegmentQueue queue(plan);
  for (int round = 0; round < 3; ++round) {
    std::vector<int> times(807, 0);
    std::vector<std::thread> threads;
    for (int thread = 0; thread < 4; ++thread) {
      threads.emplace_back([&, thread] {
        for (std::int64_t s = queue.next(thread); s >= 0; s = queue.next(thread)) ++times[s];
      });
    }
    for (std::thread& thread : threads) thread.join();
    EXPECT_EQ(times, std::vector<int>(807, 1));
    queue.reset();
  }
}

TEST(SegmentQueue, OfNothingIsEmpty) {
  const SplitPlan plan = plan_of({0, 0});
  kernels::SegmentQueue queue(plan);
  EXPECT_EQ(queue.next(1), -1);
}

}  // namespace
}  // namespace mla::test
