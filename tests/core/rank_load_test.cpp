#include <gtest/gtest.h>

#include "core/chunk_tree.h"
#include "tests/core/batches.h"
#include "tests/core/partition_checks.h"

namespace mla {
namespace {

using Kind = ShardMode::Kind;

/// One request of four chunks whose first three lie on rank 0.
Partition three_and_one() {
  return {.mode = {Kind::kKv},
          .piece_offsets = {0, 1, 2},
          .pieces = {{0, {0, 16}, {0, 3}}, {0, {0, 16}, {3, 4}}},
          .ownerships = {{0, {0, 16}, 0}}};
}

TEST(RankLoad, CountsWhatEachRankReadsSendsAndWrites) {
  Batch batch = test::planning_batch({200});
  test::add_private_pages(batch);
  const std::vector<RankLoad> loads = loads_of(batch, three_and_one());
  ASSERT_EQ(loads.size(), 2U);
  const std::int64_t q_bytes = 16 * 576 * 2;
  const std::int64_t page_bytes = 64 * 576 * 2;

  EXPECT_EQ(loads[0].pieces, 1);
  EXPECT_EQ(loads[0].kv_pages, 3);
  EXPECT_EQ(loads[0].kv_bytes, 3 * page_bytes);
  EXPECT_EQ(loads[0].q_bytes, q_bytes);
  EXPECT_EQ(loads[0].out_bytes, 16 * (512 * 2 + 4));
  EXPECT_EQ(loads[0].partials_sent, 0);
  EXPECT_EQ(loads[0].messages_sent, 0);

  EXPECT_EQ(loads[1].kv_pages, 1);
  EXPECT_EQ(loads[1].out_bytes, 0);
  EXPECT_EQ(loads[1].partials_sent, 1);
  EXPECT_EQ(loads[1].bytes_sent, 16 * (512 + 2) * 4);
  EXPECT_EQ(loads[1].messages_sent, 1);
}

TEST(RankLoad, CountsTreeNodesOnTheWireNotPieces) {
  const Batch batch = test::planning_batch({200});
  Partition partition = three_and_one();
  partition.ownerships[0].owner = 1;
  const std::vector<RankLoad> loads = loads_of(batch, partition);
  EXPECT_EQ(loads[0].partials_sent, count_maximal_nodes({0, 3}, 4));
  EXPECT_EQ(loads[0].partials_sent, 2);
}

TEST(RankLoad, CountsSharedPagesOnceAndPrivateOnesWithoutTables) {
  Batch batch = test::planning_batch({128, 128});
  batch.num_pages = 3;
  batch.requests[0].block_table = {0, 1};
  batch.requests[1].block_table = {0, 2};
  const Partition partition = make_partition(batch, {Kind::kBatch}, 1);
  EXPECT_EQ(loads_of(batch, partition)[0].kv_pages, 3);
  for (Request& request : batch.requests) request.block_table.clear();
  EXPECT_EQ(loads_of(batch, partition)[0].kv_pages, 4);
}

TEST(RankLoad, CanLeavePagesOut) {
  Batch batch = test::planning_batch({5000, 300});
  test::add_private_pages(batch);
  const Partition partition = make_partition(batch, {Kind::kKv}, 3);
  const std::vector<RankLoad> with = loads_of(batch, partition);
  const std::vector<RankLoad> without = loads_of(batch, partition, {}, CountPages::kNo);
  for (std::size_t rank = 0; rank < with.size(); ++rank) {
    EXPECT_GT(with[rank].kv_pages, 0);
    EXPECT_EQ(without[rank].kv_pages, 0);
    EXPECT_EQ(without[rank].kv_bytes, 0);
    EXPECT_EQ(without[rank].cost, with[rank].cost);
    EXPECT_EQ(without[rank].bytes_sent, with[rank].bytes_sent);
  }
}

TEST(RankLoad, CostsAddUpToThatOfAllChunksInEveryModeThatCutsNoHeads) {
  const Batch batch = test::planning_batch({5000, 0, 300, 64, 12345});
  const CostModel cost;
  double total = 0;
  for (const Request& request : batch.requests) {
    for (std::int64_t c = 0; c < batch.num_chunks(request); ++c) {
      total += cost.chunk(batch, request, c, batch.shape.h_q);
    }
  }
  for (const Kind kind : {Kind::kKv, Kind::kBatch}) {
    for (const int ranks : {1, 2, 7, 100}) {
      double sum = 0;
      for (const RankLoad& load : loads_of(batch, make_partition(batch, {kind}, ranks))) {
        sum += load.cost;
      }
      EXPECT_NEAR(sum, total, 1e-9 * total);
    }
  }
}

TEST(RankLoad, ResultsAddUpToThoseOfTheBatchInEveryMode) {
  const Batch batch = test::planning_batch({5000, 0, 300, 64, 12345});
  for (const ShardMode& mode : test::all_modes(12)) {
    std::int64_t out_bytes = 0;
    for (const RankLoad& load : loads_of(batch, make_partition(batch, mode, 12))) {
      out_bytes += load.out_bytes;
    }
    EXPECT_EQ(out_bytes, 5 * 16 * (512 * 2 + 4)) << to_string(mode);
  }
}

TEST(RankLoad, SlowestRankDecides) {
  const Batch batch = test::planning_batch({64});
  const CostModel cost{.flop_per_loaded_byte = 0, .flop_per_wire_byte = 2, .flop_per_message = 5};
  EXPECT_EQ(predicted_cost(batch, {}, cost).total(), 0);
  EXPECT_EQ(predicted_cost(
                batch, {{.cost = 100}, {.cost = 50, .bytes_sent = 30, .messages_sent = 1}}, cost)
                .total(),
            115);
}

TEST(RankLoad, LoadingACacheRowCosts) {
  const Batch batch = test::planning_batch({64});
  EXPECT_EQ(predicted_cost(batch, {{.kv_rows = 3}}, {.flop_per_loaded_byte = 2}).total(),
            3 * 2 * 2 * batch.shape.d_qk);
}

TEST(RankLoad, CountsTheCacheRowsOfAllHeadsThatAPieceReads) {
  const Batch batch = test::planning_batch({1000});
  const Partition partition = make_partition(batch, {.kind = Kind::kKv}, 1);
  EXPECT_EQ(loads_of(batch, partition)[0].kv_rows, 1000);
}

}  // namespace
}  // namespace mla
