#include "core/split_plan.h"

#include <gtest/gtest.h>
#ifdef MLA_HAVE_RAPIDCHECK
#include <rapidcheck.h>
#include <rapidcheck/gtest.h>
#endif

#include "core/chunk_tree.h"
#include "core/partial.h"
#include "tests/core/batches.h"

namespace mla {
namespace {

/// What is wrong with a plan; empty if nothing is.
std::string complaint_about(const Batch& batch, const std::vector<Piece>& pieces, int threads,
                            const SplitPlan& plan) {
  const auto num_segments = static_cast<std::int64_t>(plan.segments.size());
  const auto fits = [&](const std::vector<std::int64_t>& offsets, std::size_t parts) {
    return offsets.size() == parts + 1 && offsets.front() == 0 && offsets.back() == num_segments &&
           std::is_sorted(offsets.begin(), offsets.end());
  };
  if (plan.items != work_items(batch, pieces)) return "other items";
  if (plan.threads() != threads) return "wrong number of threads";
  if (!fits(plan.thread_offsets, threads)) return "bad thread offsets";
  if (!fits(plan.item_offsets, plan.items.size())) return "bad item offsets";

  for (std::size_t i = 0; i < plan.items.size(); ++i) {
    const WorkItem& item = plan.items[i];
    std::int64_t chunk = item.chunks.begin;
    Range slice{item.rows.begin, item.rows.begin};
    for (std::int64_t s = plan.item_offsets[i]; s < plan.item_offsets[i + 1]; ++s) {
      const Segment& segment = plan.segments[s];
      if (segment.item != static_cast<std::int64_t>(i)) return "segment under a wrong item";
      if (chunk == item.chunks.begin) slice = {slice.end, segment.rows.end};
      if (segment.rows != slice || slice.empty()) return "row twice or missing";
      if (segment.chunks.begin != chunk || segment.chunks.empty()) return "chunk twice or missing";
      chunk = segment.chunks.end == item.chunks.end ? item.chunks.begin : segment.chunks.end;
    }
    if (chunk != item.chunks.begin) return "last chunks missing";
    if (!item.chunks.empty() && slice.end != item.rows.end) return "last rows missing";
  }

  if (plan.float_offsets.size() != plan.segments.size() + 1 || plan.float_offsets[0] != 0) {
    return "bad float offsets";
  }
  for (std::int64_t s = 0; s < num_segments; ++s) {
    const WorkItem& item = plan.items[plan.segments[s].item];
    const std::int64_t n = batch.num_chunks(batch.requests[item.request]);
    const Range chunks = plan.segments[s].chunks;
    const std::int64_t nodes = chunks == Range{0, n} ? 0 : count_maximal_nodes(chunks, n);
    if (plan.float_offsets[s + 1] - plan.float_offsets[s] !=
        nodes * partial_floats(plan.segments[s].rows.size(), batch.shape.d_v)) {
      return "wrong room for a segment";
    }
  }
  return "";
}

struct ThreadCosts {
  double slowest = 0;
  double total = 0;
  double largest_chunk = 0;
};

ThreadCosts costs_of(const Batch& batch, const SplitPlan& plan) {
  const CostModel cost;
  ThreadCosts costs;
  for (int thread = 0; thread < plan.threads(); ++thread) {
    double sum = 0;
    for (std::int64_t s = plan.thread_offsets[thread]; s < plan.thread_offsets[thread + 1]; ++s) {
      const WorkItem& item = plan.items[plan.segments[s].item];
      const Range chunks = plan.segments[s].chunks;
      for (std::int64_t c = chunks.begin; c < chunks.end; ++c) {
        const double chunk =
            cost.tile_chunk(batch, batch.requests[item.request], c, plan.segments[s].rows.size());
        sum += chunk;
        costs.largest_chunk = std::max(costs.largest_chunk, chunk);
      }
    }
    costs.slowest = std::max(costs.slowest, sum);
    costs.total += sum;
  }
  return costs;
}

std::vector<Piece> whole_requests(const Batch& batch) {
  return make_partition(batch, {ShardMode::Kind::kBatch}, 1).pieces;
}

TEST(WorkItems, CutRowsIntoTilesOfTheMost) {
  Batch batch = test::planning_batch({100}, 128);
  batch.requests[0].query_len = 3;
  const std::vector<Piece> pieces{{0, {0, 100}, {0, 2}}};
  const std::vector<WorkItem> items = work_items(batch, pieces);
  ASSERT_EQ(items.size(), 3U);
  EXPECT_EQ(items[0], (WorkItem{0, 0, 0, {0, 100}, {0, 128}, {0, 2}}));
  EXPECT_EQ(items[1].rows, (Range{128, 256}));
  EXPECT_EQ(items[2].rows, (Range{256, 300}));
}

TEST(WorkItems, NeverMixKvHeads) {
  Batch batch = test::planning_batch({100}, 12);
  batch.shape.h_kv = 3;
  const std::vector<Piece> pieces{{0, {2, 9}, {0, 2}}};
  const std::vector<WorkItem> items = work_items(batch, pieces);
  ASSERT_EQ(items.size(), 3U);
  EXPECT_EQ(items[0], (WorkItem{0, 0, 0, {2, 4}, {0, 2}, {0, 2}}));
  EXPECT_EQ(items[1], (WorkItem{0, 0, 1, {4, 8}, {0, 4}, {0, 2}}));
  EXPECT_EQ(items[2], (WorkItem{0, 0, 2, {8, 9}, {0, 1}, {0, 2}}));
}

TEST(WorkItems, DoNotDependOnTheChunksOfARank) {
  Batch batch = test::planning_batch({10000}, 96);
  batch.requests[0].query_len = 5;
  const std::vector<Piece> one{{0, {0, 96}, {0, 10}}};
  const std::vector<Piece> other{{0, {0, 96}, {10, 90}}};
  const std::vector<WorkItem> a = work_items(batch, one);
  const std::vector<WorkItem> b = work_items(batch, other);
  ASSERT_EQ(a.size(), b.size());
  for (std::size_t i = 0; i < a.size(); ++i) {
    EXPECT_EQ(a[i].heads, b[i].heads);
    EXPECT_EQ(a[i].rows, b[i].rows);
  }
}

TEST(SplitPlan, CoversEveryChunkOnce) {
  for (const int threads : {1, 2, 3, 16, 200}) {
    const Batch batch = test::planning_batch({5000, 0, 64, 1, 100000});
    const std::vector<Piece> pieces = whole_requests(batch);
    EXPECT_EQ(complaint_about(batch, pieces, threads, make_split_plan(batch, pieces, threads)), "")
        << threads;
  }
}

TEST(SplitPlan, OfNothingIsEmpty) {
  const Batch batch = test::planning_batch({0, 0});
  const SplitPlan plan = make_split_plan(batch, {}, 4);
  EXPECT_EQ(complaint_about(batch, {}, 4, plan), "");
  EXPECT_TRUE(plan.segments.empty());
}

TEST(SplitPlan, NeedsNoRoomForRequestsThatOneThreadFinishes) {
  const Batch batch = test::planning_batch(std::vector<std::int64_t>(1000, 640));
  const std::vector<Piece> pieces = whole_requests(batch);
  EXPECT_EQ(make_split_plan(batch, pieces, 1).float_offsets.back(), 0);
  const std::int64_t room_for_one = 4 * partial_floats(16, 512);  // at most 4 nodes to each side
  constexpr std::int64_t kCuts = 4 * 20 - 1;  // 4 shares of 250 requests, each of at most 20 parts
  EXPECT_LE(make_split_plan(batch, pieces, 4).float_offsets.back(), kCuts * 2 * room_for_one);
}

TEST(SplitPlan, CutsSharesIntoEverSmallerPartsThatOthersMayTake) {
  Batch batch = test::planning_batch({64 * 512}, 128);
  batch.chunk_tokens = 512;
  const auto sizes = [&](int threads) {
    const SplitPlan plan = make_split_plan(batch, whole_requests(batch), threads);
    std::vector<std::int64_t> chunks;
    for (std::int64_t s = 0; s < plan.thread_offsets[1]; ++s) {
      chunks.push_back(plan.segments[s].chunks.size());
    }
    return chunks;
  };
  using Sizes = std::vector<std::int64_t>;
  EXPECT_EQ(sizes(1), (Sizes{64}));
  EXPECT_EQ(sizes(2), (Sizes{8, 8, 4, 4, 2, 2, 1, 1, 1, 1}));
  EXPECT_EQ(sizes(4), (Sizes{4, 4, 2, 2, 1, 1, 1, 1}));
  EXPECT_EQ(sizes(16), (Sizes{1, 1, 1, 1}));
  EXPECT_EQ(sizes(32), (Sizes{1, 1}));
}

TEST(SplitPlan, BalancesThreadsToAChunk) {
  const Batch batch = test::planning_batch({5000, 777, 64, 1, 100000, 30000}, 128);
  for (const int threads : {2, 3, 8, 64}) {
    const ThreadCosts costs =
        costs_of(batch, make_split_plan(batch, whole_requests(batch), threads));
    EXPECT_LE(costs.slowest, (costs.total / threads + costs.largest_chunk) * (1 + 1e-9));
  }
}

TEST(SplitPlan, KeepsRowsTogetherWhereThereAreChunksForAllThreads) {
  Batch batch = test::planning_batch({64 * 512}, 128);
  batch.chunk_tokens = 512;
  for (const int threads : {1, 2, 4, 16}) {
    const SplitPlan plan = make_split_plan(batch, whole_requests(batch), threads);
    for (const Segment& segment : plan.segments) EXPECT_EQ(segment.rows, (Range{0, 128}));
  }
}

TEST(SplitPlan, CutsRowsWhereChunksAreTooFew) {
  const auto slice_rows = [](std::int64_t chunks, std::int64_t heads, int threads) {
    Batch batch = test::planning_batch({512 * chunks}, heads);
    batch.chunk_tokens = 512;
    const std::vector<Piece> pieces = whole_requests(batch);
    const SplitPlan plan = make_split_plan(batch, pieces, threads);
    EXPECT_EQ(complaint_about(batch, pieces, threads, plan), "");
    return plan.segments.front().rows.size();
  };
  EXPECT_EQ(slice_rows(1, 128, 2), 64);
  EXPECT_EQ(slice_rows(3, 128, 2), 64);
  EXPECT_EQ(slice_rows(2, 128, 8), 32);
  EXPECT_EQ(slice_rows(2, 128, 16), 16);
  EXPECT_EQ(slice_rows(1, 64, 4), 16);
  EXPECT_EQ(slice_rows(1, 64, 3), 32);  // narrower ones would keep no more threads busy
  EXPECT_EQ(slice_rows(1, 16, 2), 16);  // one vector of rows cannot be cut
}

#ifdef MLA_HAVE_RAPIDCHECK
RC_GTEST_PROP(SplitPlan, CoversEveryChunkOfAnyShareOnceAndInBalance, ()) {
  const auto context_lens = *rc::gen::nonEmpty(
      rc::gen::container<std::vector<std::int64_t>>(rc::gen::inRange<std::int64_t>(0, 20000)));
  Batch batch = test::planning_batch(context_lens, 4 * *rc::gen::inRange<std::int64_t>(1, 40));
  batch.shape.h_kv = *rc::gen::element<std::int64_t>(1, 2, 4);
  for (Request& request : batch.requests) {
    request.query_len = *rc::gen::inRange<std::int64_t>(1, 5);
  }
  const auto ranks = *rc::gen::inRange(1, 6);
  const auto threads = *rc::gen::inRange(1, 20);
  for (const ShardMode::Kind kind : {ShardMode::Kind::kKv, ShardMode::Kind::kHeads}) {
    const Partition partition = make_partition(batch, {kind}, ranks);
    for (int rank = 0; rank < ranks; ++rank) {
      const std::vector<Piece> pieces(partition.pieces.begin() + partition.piece_offsets[rank],
                                      partition.pieces.begin() + partition.piece_offsets[rank + 1]);
      const SplitPlan plan = make_split_plan(batch, pieces, threads);
      RC_ASSERT(complaint_about(batch, pieces, threads, plan) == std::string());
      const ThreadCosts costs = costs_of(batch, plan);
      RC_ASSERT(costs.slowest <= (costs.total / threads + costs.largest_chunk) * (1 + 1e-9));
    }
  }
}
#endif

}  // namespace
}  // namespace mla
