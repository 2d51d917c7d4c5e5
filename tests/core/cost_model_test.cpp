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

TEST(CostModel, CountsFlopWhereTheyOutweighTheCache) {
  const Batch batch = test::planning_batch({64}, 128);
  const CostModel cost{.flop_per_kv_byte = 0, .flop_per_merged_float = 0};
  EXPECT_EQ(cost.chunk(batch, batch.requests[0], 0, 128), 2.0 * 64 * 128 * (576 + 512));
}

TEST(CostModel, CountsCacheBytesWhereTheyOutweighTheFlop) {
  const Batch batch = test::planning_batch({64}, 1);
  const CostModel cost{.flop_per_kv_byte = 1e6, .flop_per_merged_float = 0};
  EXPECT_EQ(cost.chunk(batch, batch.requests[0], 0, 1), 1e6 * 64 * 576 * 2);
}

TEST(CostModel, ReadsTheCacheOncePerKvHead) {
  Batch batch = test::planning_batch({64}, 16);
  const CostModel cost{.flop_per_kv_byte = 1e6, .flop_per_merged_float = 0};
  const double one_kv_head = cost.chunk(batch, batch.requests[0], 0, 16);
  batch.shape.h_kv = 4;
  EXPECT_EQ(cost.chunk(batch, batch.requests[0], 0, 16), 4 * one_kv_head);
  EXPECT_EQ(cost.chunk(batch, batch.requests[0], 0, 4), one_kv_head);
}

TEST(CostModel, GrowsWithRowsAndTokens) {
  Batch batch = test::planning_batch({64, 32}, 128);
  const CostModel cost;
  const double full = cost.chunk(batch, batch.requests[0], 0, 128);
  EXPECT_GT(full, cost.chunk(batch, batch.requests[0], 0, 64));
  EXPECT_GT(full, cost.chunk(batch, batch.requests[1], 0, 128));
  batch.requests[0].query_len = 2;
  EXPECT_EQ(cost.chunk(batch, batch.requests[0], 0, 128), 2 * full);
}

}  // namespace
}  // namespace mla
