#include "launch/step_plan.h"

#include <limits>
#include <numeric>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace mla::launch {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

constexpr double kForever = std::numeric_limits<double>::infinity();

Batch batch_of(std::int64_t requests, std::int64_t context_len) {
  Batch batch;
  batch.shape = {.h_q = 128, .h_kv = 1, .d_qk = 576, .d_v = 512};
  for (std::int64_t i = 0; i < requests; ++i) {
    batch.requests.push_back(
        {.custom_id = {}, .query_len = 1, .context_len = context_len, .block_table = {}, .q = {}});
  }
  return batch;
}

std::vector<std::int64_t> all_of(const Batch& batch) {
  std::vector<std::int64_t> requests(batch.requests.size());
  std::iota(requests.begin(), requests.end(), std::int64_t{0});
  return requests;
}

/// Sizes of the steps of a job that computes `rate` requests a second.
std::vector<std::int64_t> step_sizes(StepPlan plan, double rate) {
  std::vector<std::int64_t> sizes;
  double seconds = 0;
  for (auto step = plan.next(0, kForever); !step.empty(); step = plan.next(seconds, kForever)) {
    sizes.push_back(static_cast<std::int64_t>(step.size()));
    seconds = static_cast<double>(step.size()) / rate;
  }
  EXPECT_EQ(plan.requests_left(), 0);
  EXPECT_DOUBLE_EQ(plan.share_begun(), 1);
  return sizes;
}

TEST(StepPlan, HandsOutEveryRequestOnceInOrder) {
  const Batch batch = batch_of(500, 4000);
  std::vector<std::int64_t> left = all_of(batch);
  left.erase(left.begin() + 100, left.begin() + 200);
  StepPlan plan(batch, left, 3, 6, 0.5);
  std::vector<std::int64_t> seen;
  for (auto step = plan.next(0, kForever); !step.empty(); step = plan.next(0.1, kForever)) {
    seen.insert(seen.end(), step.begin(), step.end());
  }
  EXPECT_EQ(seen, left);
}

TEST(StepPlan, HasOneStepForASmallBatch) {
  EXPECT_THAT(step_sizes(StepPlan(batch_of(8, 4000), {0, 1, 2, 3, 4, 5, 6, 7}, 2, 2, 2), 100),
              ElementsAre(8));
}

TEST(StepPlan, GrowsToStepsOfTheSecondsWished) {
  const Batch batch = batch_of(5000, 4000);
  const auto sizes = step_sizes(StepPlan(batch, all_of(batch), 4, 4, 2), 200);
  ASSERT_GE(sizes.size(), 5u);
  EXPECT_LT(sizes[0], 100);  // what even slow threads do in two seconds
  for (std::size_t i = 2; i + 1 < sizes.size(); ++i) {
    EXPECT_GE(sizes[i], 399) << i;
    EXPECT_LE(sizes[i], 401) << i;
  }
}

TEST(StepPlan, LeavesNoSmallRemainder) {
  const Batch batch = batch_of(2100, 4000);
  EXPECT_GE(step_sizes(StepPlan(batch, all_of(batch), 4, 4, 2), 200).back(), 200);
}

TEST(StepPlan, GivesEveryRankARequest) {
  const Batch batch = batch_of(64, 400'000);
  EXPECT_THAT(step_sizes(StepPlan(batch, all_of(batch), 16, 16, 0.01), 1),
              ElementsAre(16, 16, 16, 16));
}

TEST(StepPlan, StopsWhenNoStepFitsIntoTheTimeLeft) {
  const Batch batch = batch_of(1000, 4000);
  StepPlan plan(batch, all_of(batch), 2, 2, 1);
  EXPECT_THAT(plan.next(0, 0), IsEmpty());
  const auto first = static_cast<double>(plan.next(0, 10).size());
  const double rate = 100;
  const auto short_step = plan.next(first / rate, 0.1);
  EXPECT_GE(short_step.size(), 2u);
  EXPECT_LE(short_step.size(), 10u);
  EXPECT_THAT(plan.next(static_cast<double>(short_step.size()) / rate, 0.015), IsEmpty());
  EXPECT_GT(plan.requests_left(), 900);
}

TEST(StepPlan, CountsRequestsWithoutKeysToo) {
  const Batch batch = batch_of(100'000, 0);
  EXPECT_LE(step_sizes(StepPlan(batch, all_of(batch), 2, 2, 2), 1e6).size(), 5u);
}

}  // namespace
}  // namespace mla::launch
