#include "core/growing_plan.h"

#include <algorithm>
#include <numeric>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#ifdef MLA_HAVE_RAPIDCHECK
#include <rapidcheck.h>
#include <rapidcheck/gtest.h>
#endif

#include "core/error.h"
#include "tests/core/batches.h"
#include "tests/core/partition_checks.h"

namespace mla {
namespace {

using Change = GrowingSteps::Change;
using Kind = ShardMode::Kind;

std::vector<std::int64_t> all_of(const Batch& batch) {
  std::vector<std::int64_t> requests(batch.requests.size());
  std::iota(requests.begin(), requests.end(), std::int64_t{0});
  return requests;
}

GrowingPlan plan_of(const Batch& batch, std::int64_t steps, ShardMode mode, int ranks) {
  return make_growing_plan(batch, all_of(batch), {steps}, mode, ranks);
}

/// Predicted cost of the slowest rank, and of the mean one.
struct Balance {
  double slowest = 0;
  double mean = 0;
};
Balance balance_of(const Batch& sizes, const Partition& partition) {
  Balance balance;
  for (const RankLoad& load : loads_of(sizes, partition)) {
    const double cost = predicted_cost(sizes, {load}).total();
    balance.slowest = std::max(balance.slowest, cost);
    balance.mean += cost / partition.ranks();
  }
  return balance;
}

/// What is wrong with the steps of `plan`; empty if nothing is. Right means: every chunk of each
/// step is computed once and its tensors are held; partitions stay within the bound of balance, and
/// are made anew only where the one before would exceed it.
std::string complaint_about_steps(const Batch& batch, const GrowingPlan& plan, ShardMode mode,
                                  int ranks) {
  std::vector<std::vector<Piece>> held;
  for (int rank = 0; rank < ranks; ++rank) held.push_back(held_pieces(batch, plan, rank));
  GrowingSteps steps(batch, plan);
  Partition before;
  for (std::int64_t step = 0; step < plan.growth.steps; ++step) {
    const Change change = steps.advance();
    const Batch& sizes = steps.sizes();
    const Partition& partition = steps.partition();
    if (auto text = test::complaint_about(sizes, partition, ranks); !text.empty()) return text;
    for (int rank = 0; rank < ranks; ++rank) {
      for (const std::size_t place : places_in(held[rank], partition.pieces_of(rank))) {
        if (place >= held[rank].size()) return "a rank lacks tensors";
      }
    }
    const double fresh = balance_of(sizes, make_partition(sizes, mode, ranks)).slowest;
    const Balance now = balance_of(sizes, partition);
    if (now.slowest > kMaxDrift * std::max(now.mean, fresh) * (1 + 1e-9)) return "out of balance";
    if (step > 0 && change == Change::kNew) {
      extend(sizes, before);
      const Balance kept = balance_of(sizes, before);
      if (kept.slowest <= kMaxDrift * std::max(kept.mean, fresh)) return "planned without need";
    }
    if (step > 0 && change == Change::kNone && partition.pieces != before.pieces) {
      return "chunks changed unnoticed";
    }
    before = partition;
  }
  return "";
}

TEST(GrowingPlan, EndsWithTheBatchAsItStands) {
  Batch batch = test::planning_batch({100, 0, 30});
  batch.requests[2].query_len = 4;
  const GrowingPlan plan = plan_of(batch, 3, {Kind::kKv}, 2);
  GrowingSteps steps(batch, plan);
  const auto lengths = [&] {
    std::vector<std::int64_t> all;
    for (const Request& request : steps.sizes().requests) all.push_back(request.context_len);
    return all;
  };
  EXPECT_THAT(lengths(), testing::ElementsAre(100, 0, 30));
  steps.advance();
  EXPECT_THAT(lengths(), testing::ElementsAre(98, 0, 22));
  steps.advance();
  EXPECT_THAT(lengths(), testing::ElementsAre(99, 0, 26));
  steps.advance();
  EXPECT_THAT(lengths(), testing::ElementsAre(100, 0, 30));
}

TEST(GrowingPlan, RefusesMoreStepsThanTheShortestRequestHasTokensFor) {
  Batch batch = test::planning_batch({100, 0, 30});
  batch.requests[2].query_len = 4;
  EXPECT_NO_THROW(check_growth(batch, {8}, "--steps"));  // 2, 6, ... 30
  try {
    check_growth(batch, {9}, "--steps");
    FAIL();
  } catch (const InvalidArgument& error) {
    EXPECT_STREQ(error.what(),
                 "--steps: 9; expected at most 8, as request 'request-2' has 30 tokens, of which "
                 "each step adds 4");
  }
}

TEST(GrowingPlan, GivesANewChunkToTheRankOfTheLastOne) {
  const Batch batch = test::planning_batch({64 * 8 + 1, 64 * 8 + 1});
  const GrowingPlan plan = plan_of(batch, 4, {Kind::kKv}, 2);
  ASSERT_EQ(plan.made.size(), 1U);
  GrowingSteps steps(batch, plan);
  for (int step = 0; step < 3; ++step) steps.advance();
  EXPECT_EQ(steps.partition().pieces, plan.made[0].partition.pieces);
  EXPECT_EQ(steps.advance(), Change::kExtended);
  EXPECT_THAT(steps.partition().pieces,
              testing::ElementsAre(Piece{0, {0, 16}, {0, 9}}, Piece{1, {0, 16}, {0, 9}}));
}

TEST(GrowingPlan, PlansOnceWhereAllGrowAlike) {
  const Batch batch = test::planning_batch(std::vector<std::int64_t>(64, 64 * 100));
  EXPECT_EQ(plan_of(batch, 1000, {Kind::kAuto}, 8).made.size(), 1U);
}

TEST(GrowingPlan, PlansAnewWhenOneRequestOutgrowsItsRank) {
  const Batch batch = test::planning_batch({64 * 40});
  const GrowingPlan plan = plan_of(batch, 64 * 39, {Kind::kKv}, 4);
  EXPECT_GT(plan.made.size(), 4U);
  EXPECT_LT(plan.made.size(), 40U);
  EXPECT_EQ(complaint_about_steps(batch, plan, {Kind::kKv}, 4), "");
}

TEST(GrowingPlan, KeepsAPartitionWhereNoneIsBetter) {
  Batch batch = test::planning_batch({10 * 512, 6 * 512, 6 * 512}, 128);
  batch.chunk_tokens = 512;
  const GrowingPlan plan = plan_of(batch, 2 * 512, {Kind::kKv}, 2);
  ASSERT_EQ(plan.made.size(), 2U);
  const Range heads{0, 128};
  EXPECT_THAT(plan.made[0].partition.pieces,
              testing::ElementsAre(Piece{0, heads, {0, 9}}, Piece{1, heads, {0, 5}},
                                   Piece{2, heads, {0, 5}}));
  EXPECT_GT(plan.made[1].first_step, 512);
  EXPECT_THAT(plan.made[1].partition.pieces,
              testing::ElementsAre(Piece{0, heads, {0, 10}}, Piece{1, heads, {0, 1}},
                                   Piece{1, heads, {1, 6}}, Piece{2, heads, {0, 6}}));
  EXPECT_THAT(held_pieces(batch, plan, 0),
              testing::ElementsAre(Piece{0, heads, {0, 10}}, Piece{1, heads, {0, 1}}));
  EXPECT_THAT(held_pieces(batch, plan, 1),
              testing::ElementsAre(Piece{1, heads, {0, 6}}, Piece{2, heads, {0, 6}}));
}

#ifdef MLA_HAVE_RAPIDCHECK
RC_GTEST_PROP(GrowingPlan, CoversEveryChunkOnceAndStaysWithinItsBound, ()) {
  const auto lengths = *rc::gen::nonEmpty(rc::gen::scale(
      0.3, rc::gen::container<std::vector<std::int64_t>>(rc::gen::inRange<std::int64_t>(1, 3000))));
  Batch batch = test::planning_batch(lengths, *rc::gen::inRange(1, 40));
  const auto steps = *rc::gen::inRange<std::int64_t>(1, 80);
  for (Request& request : batch.requests) {
    request.query_len = *rc::gen::inRange<std::int64_t>(1, 12);
    request.context_len += (steps - 1) * request.query_len;
  }
  const int ranks = *rc::gen::inRange(1, 9);
  const ShardMode mode = *rc::gen::elementOf(test::all_modes(ranks));
  RC_ASSERT(complaint_about_steps(batch, plan_of(batch, steps, mode, ranks), mode, ranks) == "");
}
#endif

}  // namespace
}  // namespace mla
