#include "dist/model/planner.h"

#include <string>

#include <gtest/gtest.h>

#include "core/error.h"
#include "dist/model/expert_pairs.h"
#include "tests/dist/model/replay.h"

namespace mla::dist {
namespace {

std::vector<ShardingCost> costs_for(int ranks, const ModelWorkload& workload) {
  const TestModel& model = demo_model();
  const ModelLimits limits{.max_tokens = 64, .max_logits = workload.requests};
  return sharding_costs(model.config, model.weights, ranks, workload, limits,
                        kernels::find_host_backend("portable"));
}

TEST(ModelSharding, IsReadAndWritten) {
  EXPECT_EQ(parse_model_sharding("heads", 6, 0), (ModelSharding{6, 6}));
  EXPECT_EQ(parse_model_sharding("requests", 6, 0), (ModelSharding{6, 1}));
  EXPECT_EQ(parse_model_sharding("groups:2", 6, 0), (ModelSharding{6, 3}));
  EXPECT_EQ(parse_model_sharding("kv", 6, 5000), (ModelSharding{6, 6, 1024}));
  for (const char* text : {"heads", "kv", "requests", "groups:2"}) {
    EXPECT_EQ(to_string(parse_model_sharding(text, 6, 5000)), text);
  }
  for (const char* text : {"", "groups:", "groups:4", "groups:0", "groups:2x", "tp"}) {
    EXPECT_THROW(parse_model_sharding(text, 6, 5000), InvalidArgument) << text;
  }
}

TEST(ModelSharding, GivesEveryRowToARankOfEachGroup) {
  const TestModel& model = demo_model();
  for (const int group_size : {1, 2, 3, 6}) {
    const ModelSharding sharding{6, group_size};
    std::int64_t rows = 0;
    for (int rank = 0; rank < sharding.ranks; ++rank) {
      for (const UsedRows& used : used_rows(model.config, model.weights, sharding, rank)) {
        if (used.matrix.data == model.weights.layers[1].attention.q_b.data) {
          rows += used.rows.size();
        }
      }
    }
    EXPECT_EQ(rows, sharding.groups() * model.weights.layers[1].attention.q_b.rows);
  }
}

TEST(Planner, TakesHeadsForOneRequestGroupsForManyAndRunsForLongContexts) {
  constexpr std::int64_t kPlenty = std::int64_t{1} << 40;
  EXPECT_EQ(choose_sharding(costs_for(1, {}), kPlenty).sharding, (ModelSharding{1, 1}));
  const ModelSharding many =
      choose_sharding(costs_for(8, {.requests = 64, .context = 2048}), kPlenty).sharding;
  EXPECT_EQ(many.groups(), 8);
  const ModelSharding long_one =
      choose_sharding(costs_for(8, {.requests = 1, .context = 1 << 20}), kPlenty).sharding;
  EXPECT_TRUE(long_one.splits_cache());
}

TEST(Planner, KnowsTheSplitCacheOfAnyNumberOfRanks) {
  for (const int ranks : {1, 2, 3}) {
    const auto costs = costs_for(ranks, {.context = 3000, .fast_combine = true});
    ModelSharding kv = parse_model_sharding("kv", ranks, 3000);
    EXPECT_NE(costs.back().sharding, kv);
    kv.fast_combine = true;
    EXPECT_EQ(costs.back().sharding, kv);
  }
}

TEST(Planner, SavesCacheByMoreGroups) {
  const auto costs = costs_for(4, {.requests = 8, .context = 1024});
  ASSERT_EQ(costs.size(), 4U);
  EXPECT_EQ(costs[0].limits.num_pages, 8 * 16);
  EXPECT_EQ(costs[2].limits.num_pages, 2 * 16);
  EXPECT_GT(costs[0].memory.cache, costs[2].memory.cache);
}

TEST(Planner, RefusesWhatDoesNotFitInOneLine) {
  const auto costs = costs_for(2, {.requests = 8, .context = 1024});
  try {
    choose_sharding(costs, 1 << 20);
    FAIL() << "nothing fits into 1 MiB";
  } catch (const InvalidArgument& error) {
    EXPECT_NE(std::string(error.what()).find("memory of a rank"), std::string::npos);
  }
}

TEST(ExpertPairs, AreSortedByExpertThenByToken) {
  const std::int32_t chosen[] = {1, 3, 0, 3, 1, 4};
  ExpertPairs pairs;
  sort_pairs(chosen, 2, {1, 4}, pairs);
  EXPECT_EQ(pairs.offsets, (std::vector<std::int64_t>{0, 2, 2, 4}));
  EXPECT_EQ(pairs.tokens, (std::vector<std::int64_t>{0, 2, 0, 1}));
  EXPECT_EQ(pairs.places, (std::vector<std::int64_t>{0, 2, -1, 3, 1, -1}));
  EXPECT_EQ(pairs.pairs_of(3), (Range{2, 4}));
}

}  // namespace
}  // namespace mla::dist
