#include "core/cost_model.h"

#include <gtest/gtest.h>

#include "tests/core/batches.h"

namespace mla {
namespace {

TEST(CostModel, OnlyTheLastChunkIsShort) {
  const Batch batch = test::planning_batch({130});
  EXPECT_EQ(tokens_in_chunk(batch, batch.requests[0], 0), 64);
  EXPECT_EQ(tokens_in_chunk(batch, batch.requests[0], 1), 64);
  EXPECT_EQ(tokens_in_chunk(batch, batch.requests[0], 2), 2);
}

TEST(CostModel, CountsProductsOfEveryRowAndTheCacheOnce) {
  const Batch batch = test::planning_batch({64}, 128);
  const CostModel cost{.flop_per_kv_byte = 5, .flop_per_merged_float = 0};
  const double cache = 5.0 * 64 * 576 * 2;
  EXPECT_EQ(cost.chunk(batch, batch.requests[0], 0, 128), 2.0 * 64 * 128 * (576 + 512) + cache);
  EXPECT_EQ(cost.chunk(batch, batch.requests[0], 0, 64), 2.0 * 64 * 64 * (576 + 512) + cache);
}

TEST(CostModel, RowsFillVectorsOfScores) {
  const Batch batch = test::planning_batch({64}, 1);
  const CostModel cost{.flop_per_kv_byte = 0, .flop_per_merged_float = 0};
  EXPECT_EQ(cost.chunk(batch, batch.requests[0], 0, 1), 2.0 * 64 * (16 * 576 + 512));
}

TEST(CostModel, PaddedRowsOfValuesCountAsFarAsTheBackendComputesThem) {
  const Batch batch = test::planning_batch({64}, 20);
  const auto cost_of = [&](std::int64_t heads, double padded) {
    const CostModel cost{
        .flop_per_kv_byte = 0, .padded_values = padded, .flop_per_merged_float = 0};
    return cost.chunk(batch, batch.requests[0], 0, heads);
  };
  EXPECT_EQ(cost_of(1, 1), cost_of(16, 1));
  EXPECT_EQ(cost_of(16, 1), cost_of(16, 0));
  EXPECT_EQ(cost_of(17, 1), cost_of(20, 1));
  EXPECT_EQ(cost_of(1, 0.2), 2.0 * 64 * (16 * 576 + (1 + 0.2 * 15) * 512));
}

TEST(CostModel, ReadsTheCacheOncePerKvHead) {
  Batch batch = test::planning_batch({64}, 16);
  const auto cache_cost = [&](std::int64_t heads) {
    const CostModel cost{.flop_per_kv_byte = 5};
    const CostModel products{.flop_per_kv_byte = 0};
    return cost.chunk(batch, batch.requests[0], 0, heads) -
           products.chunk(batch, batch.requests[0], 0, heads);
  };
  const double one_kv_head = cache_cost(16);
  batch.shape.h_kv = 4;
  EXPECT_EQ(cache_cost(16), 4 * one_kv_head);
  EXPECT_EQ(cache_cost(4), one_kv_head);
}

TEST(CostModel, GrowsWithRowsAndTokens) {
  Batch batch = test::planning_batch({64, 32}, 128);
  const CostModel cost;
  const double full = cost.chunk(batch, batch.requests[0], 0, 128);
  EXPECT_GT(full, cost.chunk(batch, batch.requests[0], 0, 64));
  EXPECT_GT(full, cost.chunk(batch, batch.requests[1], 0, 128));
  batch.requests[0].query_len = 2;
  EXPECT_GT(cost.chunk(batch, batch.requests[0], 0, 128), 1.9 * full);
}

}  // namespace
}  // namespace mla
