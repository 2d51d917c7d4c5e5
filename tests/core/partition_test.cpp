#include "core/partition.h"

#include <limits>
#include <random>

#include <gtest/gtest.h>
#ifdef MLA_HAVE_RAPIDCHECK
#include <rapidcheck.h>
#include <rapidcheck/gtest.h>
#endif

#include "core/chunk_tree.h"
#include "tests/core/batches.h"
#include "tests/core/partition_checks.h"

namespace mla {
namespace {

using Kind = ShardMode::Kind;

double max_over_mean(const Batch& batch, const Partition& partition) {
  double total = 0;
  double slowest = 0;
  for (const RankLoad& load : loads_of(batch, partition)) {
    total += load.cost;
    slowest = std::max(slowest, load.cost);
  }
  return slowest / (total / partition.ranks());
}

bool same(const Partition& a, const Partition& b) {
  return a.mode == b.mode && a.piece_offsets == b.piece_offsets && a.pieces == b.pieces &&
         a.ownerships == b.ownerships;
}

std::vector<Piece> pieces_of(const Partition& partition, int rank) {
  return {partition.pieces.begin() + partition.piece_offsets[rank],
          partition.pieces.begin() + partition.piece_offsets[rank + 1]};
}

void expect_right_in_all_modes(const Batch& batch, int ranks) {
  for (const ShardMode& mode : test::all_modes(ranks)) {
    const Partition partition = make_partition(batch, mode, ranks);
    EXPECT_EQ(test::complaint_about(batch, partition, ranks), "")
        << to_string(mode) << " on " << ranks << " ranks";
    EXPECT_TRUE(mode.kind == Kind::kAuto || partition.mode == mode);
  }
}

TEST(Partition, OfSomeRequestsIsThatOfABatchOfThem) {
  const Batch batch = test::planning_batch({500, 64, 0, 900, 70, 2000});
  const std::vector<std::int64_t> some{0, 2, 3, 5};
  const Batch small = test::planning_batch({500, 0, 900, 2000});
  for (const ShardMode& mode : test::all_modes(4)) {
    Partition expected = make_partition(small, mode, 4);
    for (Piece& piece : expected.pieces) piece.request = some[piece.request];
    for (Ownership& ownership : expected.ownerships) ownership.request = some[ownership.request];
    EXPECT_TRUE(same(make_partition(batch, some, mode, 4), expected)) << to_string(mode);
  }
}

TEST(Partition, IsRightForCornerCases) {
  const std::vector<std::vector<std::int64_t>> batches = {{0},
                                                          {1},
                                                          {64},
                                                          {65},
                                                          {0, 0, 0},
                                                          {0, 100, 0},
                                                          {100, 0},
                                                          {0, 100},
                                                          {1, 1, 1, 1, 1},
                                                          {100000},
                                                          {100000, 1},
                                                          {1, 100000},
                                                          {64, 0, 0, 64, 0, 0, 64}};
  for (const auto& context_lens : batches) {
    for (const int ranks : {1, 2, 3, 4, 5, 7, 8, 12, 31}) {
      expect_right_in_all_modes(test::planning_batch(context_lens), ranks);
      expect_right_in_all_modes(test::planning_batch(context_lens, 3), ranks);
    }
  }
}

TEST(Partition, KvCutsOneLongRequestAtItsLargestSubtrees) {
  const Batch batch = test::planning_batch({4 * 1024 * 64});
  const Partition partition = make_partition(batch, {Kind::kKv}, 4);
  for (int rank = 0; rank < 4; ++rank) {
    EXPECT_EQ(pieces_of(partition, rank),
              (std::vector<Piece>{{0, {0, 16}, {rank * 1024, (rank + 1) * 1024}}}));
  }
}

TEST(Partition, KvCutsAShortRequestAtItsLargestSubtreesWhereNoRankHasMoreToDoForIt) {
  const Batch batch = test::planning_batch({13 * 64 + 13});  // 14 chunks, the last one short
  const auto chunks_of_ranks = [&](int ranks) {
    const Partition partition = make_partition(batch, {Kind::kKv}, ranks);
    std::vector<Range> chunks;
    for (const Piece& piece : partition.pieces) chunks.push_back(piece.chunks);
    return chunks;
  };
  EXPECT_EQ(chunks_of_ranks(2), (std::vector<Range>{{0, 7}, {7, 14}}));
  EXPECT_EQ(chunks_of_ranks(4), (std::vector<Range>{{0, 4}, {4, 8}, {8, 12}, {12, 14}}));
  EXPECT_EQ(chunks_of_ranks(8),
            (std::vector<Range>{{0, 2}, {2, 4}, {4, 6}, {6, 8}, {8, 10}, {10, 12}, {12, 14}}));
  EXPECT_EQ(chunks_of_ranks(16).size(), 14U);
}

TEST(Partition, KvSnapsToRequestBegins) {
  // The ideal cut lies a little after the begin of request 1.
  const Batch batch = test::planning_batch({64 * 1000, 64 * 1010});
  const Partition partition = make_partition(batch, {Kind::kKv}, 2);
  EXPECT_EQ(pieces_of(partition, 0), (std::vector<Piece>{{0, {0, 16}, {0, 1000}}}));
  EXPECT_EQ(pieces_of(partition, 1), (std::vector<Piece>{{1, {0, 16}, {0, 1010}}}));
}

TEST(Partition, HeadsGivesEachRankSomeHeadsOfEveryRequest) {
  const Batch batch = test::planning_batch({100, 0, 300});
  const Partition partition = make_partition(batch, {Kind::kHeads}, 4);
  for (int rank = 0; rank < 4; ++rank) {
    const Range heads{rank * 4, rank * 4 + 4};
    EXPECT_EQ(pieces_of(partition, rank),
              (std::vector<Piece>{{0, heads, {0, 2}}, {2, heads, {0, 5}}}));
  }
  for (const RankLoad& load : loads_of(batch, partition)) EXPECT_EQ(load.partials_sent, 0);
}

TEST(Partition, BatchDealsWholeRequestsLongestFirst) {
  const Batch batch = test::planning_batch({64 * 2, 64 * 9, 64 * 3, 64 * 4});
  const Partition partition = make_partition(batch, {Kind::kBatch}, 2);
  EXPECT_EQ(pieces_of(partition, 0), (std::vector<Piece>{{1, {0, 16}, {0, 9}}}));
  EXPECT_EQ(pieces_of(partition, 1),
            (std::vector<Piece>{{0, {0, 16}, {0, 2}}, {2, {0, 16}, {0, 3}}, {3, {0, 16}, {0, 4}}}));
}

TEST(Partition, OfEqualRequestsDependsOnNoRoundingOfTheirCosts) {
  const Batch batch = test::planning_batch(std::vector<std::int64_t>(8, 1000));
  const Partition expected = make_partition(batch, {Kind::kBatch}, 8);
  for (int i = 0; i < 100; ++i) {
    const CostModel cost{.flop_per_kv_byte = 1 + 0.01 * i, .padded_values = 0.003 * i};
    EXPECT_TRUE(same_work(make_partition(batch, {Kind::kBatch}, 8, cost), expected)) << i;
  }
}

TEST(Partition, OwnerHasMostOfTheChunks) {
  const Batch batch = test::planning_batch({64 * 300, 64 * 700, 64 * 100, 64 * 900});
  for (const int ranks : {2, 3, 5}) {
    const Partition partition = make_partition(batch, {Kind::kKv}, ranks);
    for (const Ownership& o : partition.ownerships) {
      std::int64_t most = 0;
      std::int64_t owners = 0;
      for (int rank = 0; rank < ranks; ++rank) {
        for (const Piece& piece : pieces_of(partition, rank)) {
          if (piece.request != o.request) continue;
          most = std::max(most, piece.chunks.size());
          if (rank == o.owner) owners = piece.chunks.size();
        }
      }
      EXPECT_GE(2 * owners, most);
    }
  }
}

TEST(Partition, RequestsWithoutTokensAreOwnedInTurn) {
  const Partition partition = make_partition(test::planning_batch({0, 0, 0, 0, 0}), {Kind::kKv}, 3);
  for (const Ownership& o : partition.ownerships) EXPECT_EQ(o.owner, o.request % 3);
}

TEST(Partition, RanksBeyondTheHeadsIdle) {
  const Batch batch = test::planning_batch({1000}, 2);
  const Partition partition = make_partition(batch, {Kind::kHeads}, 4);
  std::int64_t busy = 0;
  for (const RankLoad& load : loads_of(batch, partition)) busy += load.pieces;
  EXPECT_EQ(busy, 2);
}

TEST(Partition, FlatCutIsBalancedAndSendsLittleWhenChunksAreMany) {
  std::mt19937_64 random(1);
  std::lognormal_distribution<double> length(9, 1.2);
  for (const int ranks : {2, 4, 8, 16, 32}) {
    std::vector<std::int64_t> context_lens(ranks);
    for (std::int64_t& context_len : context_lens) {
      context_len = std::min<std::int64_t>(200000, static_cast<std::int64_t>(length(random)) + 1);
    }
    const Batch batch = test::planning_batch(context_lens, 128);
    const Partition partition = make_partition(batch, {Kind::kKv}, ranks);
    EXPECT_LE(max_over_mean(batch, partition), 1.05) << ranks;
    EXPECT_LE(partition.pieces.size(), static_cast<std::size_t>(2 * ranks)) << ranks;
  }
}

/// What the dearest of `parts` runs of `costs` costs at least.
double least_limit(const std::vector<double>& costs, int parts) {
  const std::size_t count = costs.size();
  std::vector<double> least(count + 1, std::numeric_limits<double>::infinity());  // of the first n
  least[0] = 0;
  for (int part = 0; part < parts; ++part) {
    std::vector<double> next = least;
    for (std::size_t begin = 0; begin < count; ++begin) {
      double run = 0;
      for (std::size_t end = begin + 1; end <= count; ++end) {
        run += costs[end - 1];
        next[end] = std::min(next[end], std::max(least[begin], run));
      }
    }
    least = std::move(next);
  }
  return least[count];
}

TEST(Partition, FlatCutGivesNoRankMoreThanSomeRankMustHaveOrTwoPercent) {
  std::mt19937_64 random(3);
  for (int trial = 0; trial < 100; ++trial) {
    std::vector<std::int64_t> context_lens(1 + random() % 5);
    for (std::int64_t& context_len : context_lens) {
      context_len = static_cast<std::int64_t>(random() % 1500);
    }
    const Batch batch = test::planning_batch(context_lens);
    std::vector<double> costs;
    for (const Request& request : batch.requests) {
      for (std::int64_t c = 0; c < batch.num_chunks(request); ++c) {
        costs.push_back(CostModel{}.chunk(batch, request, c, batch.shape.h_q));
      }
    }
    for (const int ranks : {2, 3, 4, 7, 16}) {
      double total = 0;
      double slowest = 0;
      for (const RankLoad& load : loads_of(batch, make_partition(batch, {Kind::kKv}, ranks))) {
        total += load.cost;
        slowest = std::max(slowest, load.cost);
      }
      const double limit = std::max(least_limit(costs, ranks), 1.02 * total / ranks);
      EXPECT_LE(slowest, limit * (1 + 1e-5)) << trial << " on " << ranks;
    }
  }
}

TEST(Partition, AutoIsNeverPredictedMuchSlowerThanAnyMode) {
  std::mt19937_64 random(2);
  for (int trial = 0; trial < 20; ++trial) {
    std::vector<std::int64_t> context_lens(1 + random() % 12);
    for (std::int64_t& context_len : context_lens) {
      context_len = static_cast<std::int64_t>(random() % 100000);
    }
    const Batch batch = test::planning_batch(context_lens);
    for (const int ranks : {2, 6, 8}) {
      const double chosen =
          predicted_cost(batch, loads_of(batch, make_partition(batch, {Kind::kAuto}, ranks)))
              .total();
      for (const ShardMode& mode : test::all_modes(ranks)) {
        EXPECT_LE(
            chosen,
            1.0301 *
                predicted_cost(batch, loads_of(batch, make_partition(batch, mode, ranks))).total())
            << to_string(mode);
      }
    }
  }
}

TEST(Partition, OfManyRequestsOverManyRanksIsRight) {
  const Batch batch = test::planning_batch(std::vector<std::int64_t>(70000, 65), 8);
  for (const Kind kind : {Kind::kKv, Kind::kBatch, Kind::kHeads}) {
    const Partition partition = make_partition(batch, {kind}, 100);
    EXPECT_EQ(test::complaint_about(batch, partition, 100), "");
  }
}

#ifdef MLA_HAVE_RAPIDCHECK
Batch random_batch() {
  const auto context_lens = *rc::gen::nonEmpty(rc::gen::container<std::vector<std::int64_t>>(
      rc::gen::oneOf(rc::gen::just<std::int64_t>(0), rc::gen::inRange<std::int64_t>(0, 200),
                     rc::gen::inRange<std::int64_t>(0, 50000))));
  Batch batch = test::planning_batch(context_lens, *rc::gen::inRange<std::int64_t>(1, 40));
  for (Request& request : batch.requests) {
    request.query_len = *rc::gen::inRange<std::int64_t>(1, 5);
  }
  if (batch.shape.h_q % 2 == 0 && *rc::gen::arbitrary<bool>()) batch.shape.h_kv = 2;
  return batch;
}

RC_GTEST_PROP(Partition, CoversEveryRequestHeadAndChunkOnce, ()) {
  const Batch batch = random_batch();
  const auto ranks = *rc::gen::inRange(1, 40);
  for (const ShardMode& mode : test::all_modes(ranks)) {
    const std::string complaint =
        test::complaint_about(batch, make_partition(batch, mode, ranks), ranks);
    if (!complaint.empty()) RC_FAIL(to_string(mode) + ": " + complaint);
  }
}

RC_GTEST_PROP(Partition, IsAPureFunctionOfSizes, ()) {
  Batch batch = random_batch();
  const auto ranks = *rc::gen::inRange(1, 20);
  for (const ShardMode& mode : test::all_modes(ranks)) {
    const Partition without_tables = make_partition(batch, mode, ranks);
    Batch other = batch;
    test::add_private_pages(other);
    for (Request& request : other.requests) request.custom_id += "'";
    RC_ASSERT(same(without_tables, make_partition(other, mode, ranks)));
  }
}

RC_GTEST_PROP(Partition, FlatCutExceedsTheIdealShareByAChunkAndTwoPercentAtMost, ()) {
  const Batch batch = random_batch();
  const auto ranks = *rc::gen::inRange(1, 40);
  const std::vector<RankLoad> loads = loads_of(batch, make_partition(batch, {Kind::kKv}, ranks));
  double total = 0;
  for (const RankLoad& load : loads) total += load.cost;
  double largest_chunk = 0;
  for (const Request& request : batch.requests) {
    if (request.context_len == 0) continue;
    largest_chunk = std::max(largest_chunk, CostModel{}.chunk(batch, request, 0, batch.shape.h_q));
  }
  for (const RankLoad& load : loads) {
    RC_ASSERT(load.cost <= (total / ranks * 1.02 + largest_chunk) * (1 + 1e-9));
  }
}
#endif

}  // namespace
}  // namespace mla
