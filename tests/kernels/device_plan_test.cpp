#include "kernels/cuda/device_plan.h"

#include <limits>

#include <gtest/gtest.h>

#include "core/error.h"
#include "core/partial.h"
#include "tests/kernels/device_plan_check.h"

#ifdef MLA_HAVE_RAPIDCHECK
#include <rapidcheck.h>
#include <rapidcheck/gtest.h>
#endif

namespace mla::kernels::cuda {
namespace {

TEST(DevicePlan, OfAFastBatchIsTheDrawnOne) {
  const PlanProblem problem = PlanProblem().exact(false).add(50 * 64).add(20 * 64).add(50 * 64);
  std::vector<std::vector<std::int64_t>> tiles;
  const DevicePlan plan = problem.plan();
  for (const auto& parts : parts_of_teams(plan)) {
    tiles.emplace_back();
    for (const Part* part : parts) {
      tiles.back().push_back((part->token_end - part->token_begin) / 64);
    }
  }
  EXPECT_EQ(tiles, (std::vector<std::vector<std::int64_t>>{{31}, {19, 10}, {10, 19}, {31}}));
  EXPECT_EQ(plan.merges.size(), 3U);
  EXPECT_EQ(errors_of(problem), "");
}

TEST(DevicePlan, KeepsEqualItemsWholeWhereThereIsNearlyOneForEachTeam) {
  PlanProblem problem;
  problem.exact(false).geometry = {132, 1, 64, 64};
  for (int i = 0; i < 128; ++i) problem.add(4096);
  const DevicePlan plan = problem.plan();
  EXPECT_TRUE(plan.merges.empty());
  EXPECT_EQ(std::ssize(plan.parts), 132);
  EXPECT_EQ(errors_of(problem), "");
}

TEST(DevicePlan, CutsAFewItemsOverAllTeamsInEqualRuns) {
  PlanProblem problem;
  problem.exact(false).geometry = {132, 1, 64, 64};
  for (int i = 0; i < 4; ++i) problem.add(4096);
  const DevicePlan plan = problem.plan();
  ASSERT_EQ(plan.merges.size(), 4U);
  for (const Merge& merge : plan.merges) EXPECT_EQ(merge.count, 32);
  for (const Part& part : plan.parts) EXPECT_LE(part.token_end - part.token_begin, 128);
}

TEST(DevicePlan, GivesEveryClusterAnItemOfItsOwn) {
  for (const int per_team : {1, 2, 5}) {
    PlanProblem problem;
    problem.exact(false).geometry = {15, 8, 16, 64};
    for (int i = 0; i < 15 * per_team; ++i) problem.add(4096);
    EXPECT_TRUE(problem.plan().merges.empty());
    EXPECT_EQ(errors_of(problem), "");
  }
}

TEST(DevicePlan, GivesEveryChunkOfAFewItemsATeam) {
  PlanProblem problem;
  problem.geometry = {132, 1, 64, 64};
  problem.add(16 * 512).add(10 * 512 - 100);
  int busy = 0;
  for (const auto& parts : parts_of_teams(problem.plan())) busy += parts.size() == 1 ? 1 : 0;
  EXPECT_EQ(busy, 26);
  EXPECT_EQ(errors_of(problem), "");
}

TEST(DevicePlan, LetsIdleTeamsHelpToMerge) {
  PlanProblem problem;
  problem.geometry = {12, 1, 64, 64};
  problem.add(2 * 512, 64);
  const DevicePlan plan = problem.plan();
  ASSERT_EQ(plan.merges.size(), 1U);
  EXPECT_EQ(plan.merges[0].blocks, 64 * kPlanDv / 512);
  EXPECT_EQ(errors_of(problem), "");
}

// By mail a slice has m and l of its own, and only teams that have parts merge.
TEST(DevicePlan, CutsMergesByMailIntoAPowerOfTwoOfSlices) {
  PlanProblem problem;
  problem.exact(false).geometry = {
      .teams = 11, .blocks_per_team = 2, .rows_per_part = 16, .tile_tokens = 128, .mail_slices = 4};
  problem.add(64 * 128, 9).add(20 * 128, 9);
  EXPECT_EQ(errors_of(problem), "");
  const DevicePlan plan = problem.plan();
  ASSERT_FALSE(plan.merges.empty());
  EXPECT_TRUE(plan.merges_by_mail());
  EXPECT_EQ(plan.counters(), 22);
  for (const Merge& merge : plan.merges) {
    EXPECT_EQ(merge.slices, merge.count < 4 ? 2 : 4);
    EXPECT_EQ(merge.blocks, 2 * merge.count);
    EXPECT_EQ(merge.stride, 16 * (kPlanDv + 2 * 2 * merge.slices));
  }
}

TEST(DevicePlan, FinishesAnItemOfOneChunkWithoutAMerge) {
  const DevicePlan plan = PlanProblem().add(512).add(1).plan();
  EXPECT_TRUE(plan.merges.empty());
  EXPECT_EQ(plan.partial_floats, 0);
}

TEST(DevicePlan, WritesTheRowsOfAnItemThatSeesNoKey) {
  for (const bool exact : {true, false}) {
    PlanProblem problem;
    problem.exact(exact).add(0, 100).add(700);
    EXPECT_EQ(errors_of(problem), "");
    std::int64_t rows = 0;
    for (const Part& part : problem.plan().parts) rows += part.q == 0 ? part.rows : 0;
    EXPECT_EQ(rows, 100);
  }
}

TEST(DevicePlan, LeavesTheNodesOfOpenItems) {
  PlanProblem problem;
  problem.add(9 * 512, 100).chunks({1, 8}).add(5 * 512).add(3 * 512).chunks({2, 3});
  const DevicePlan plan = problem.plan();  // chunks 1; 2, 3; 4 to 7
  const std::int64_t node = partial_floats(100, kPlanDv);
  EXPECT_EQ(plan.node_offsets, (std::vector<std::int64_t>{0, 3 * node, 3 * node,
                                                          3 * node + partial_floats(16, kPlanDv)}));
  EXPECT_EQ(errors_of(problem), "");
}

TEST(DevicePlan, ComputesNothingOfARequestWhoseChunksAreElsewhere) {
  const DevicePlan plan = PlanProblem().add(512).chunks({1, 1}).plan();
  for (const Part& part : plan.parts) EXPECT_EQ(part.rows, 0);
}

TEST(DevicePlan, TakesTheLongestContexts) {
  constexpr std::int64_t kLongest = std::numeric_limits<std::int32_t>::max();
  for (const bool exact : {true, false}) {
    PlanProblem problem;
    problem.exact(exact).sizes.chunk_tokens = std::int64_t{1} << 24;
    problem.geometry = {132, 1, 64, 64};
    problem.add(kLongest, 100).add(kLongest).add(1);
    EXPECT_EQ(errors_of(problem), "");
  }
}

TEST(DevicePlan, NamesWhatDoesNotFit) {
  const auto message = [](auto change) {
    PlanProblem problem;
    problem.add(100);
    change(problem.items[0]);
    try {
      problem.plan();
    } catch (const InvalidArgument& error) {
      return std::string(error.what());
    }
    return std::string("nothing");
  };
  constexpr std::int64_t kTooMany = std::int64_t{1} << 31;
  EXPECT_EQ(message([](DeviceItem& item) { item.context_len = kTooMany; }),
            "items[0].context_len: 2147483648; expected 0 to 2147483647");
  EXPECT_EQ(message([](DeviceItem& item) { item.query_len = kTooMany / 16; }),
            "items[0].query_len * heads: 2147483648; expected 0 to 2147483647");
}

TEST(DevicePlan, CutsARequestOverRanksInExactPlansOnly) {
  EXPECT_THROW(PlanProblem().exact(false).add(1024).chunks({0, 1}).plan(), InvalidArgument);
}

#ifdef MLA_HAVE_RAPIDCHECK

PlanProblem any_problem() {
  PlanProblem problem;
  problem.sizes.exact = *rc::gen::arbitrary<bool>();
  problem.sizes.chunk_tokens = *rc::gen::element<std::int64_t>(64, 100, 512);
  problem.geometry = {*rc::gen::inRange(1, 40), *rc::gen::element(1, 2, 8),
                      *rc::gen::element<std::int64_t>(16, 64, 128),
                      *rc::gen::element<std::int64_t>(16, 32, 64)};
  const auto count = *rc::gen::inRange(0, 20);
  for (int i = 0; i < count; ++i) {
    problem.add(*rc::gen::inRange<std::int64_t>(0, 5000), *rc::gen::inRange<std::int64_t>(1, 300));
    DeviceItem& item = problem.items.back();
    item.rows.begin = *rc::gen::inRange<std::int64_t>(0, item.rows.end);
    if (problem.sizes.exact && *rc::gen::arbitrary<bool>()) {
      item.chunks.begin = *rc::gen::inRange<std::int64_t>(0, item.chunks.end + 1);
      item.chunks.end = *rc::gen::inRange<std::int64_t>(item.chunks.begin, item.chunks.end + 1);
    }
  }
  return problem;
}

RC_GTEST_PROP(DevicePlan, IsRightForAnyItems, ()) {
  RC_ASSERT(errors_of(any_problem()) == "");
}

#endif

}  // namespace
}  // namespace mla::kernels::cuda
