#include "dist/runs.h"

#include <cmath>
#include <vector>

#include <gtest/gtest.h>

#include "core/chunk_tree.h"
#include "core/error.h"
#include "core/partial.h"
#include "tests/core/batches.h"
#include "tests/core/partition_checks.h"

namespace mla::dist {
namespace {

constexpr std::int64_t kValueDims = 4;

Batch batch_to_cut() {
  return test::planning_batch({64 * 37, 300, 0, 1, 64 * 90 + 3, 64 * 9}, 13);
}

TEST(Runs, AreOneChunkEachAndCoverEachRequestOnce) {
  const Batch batch = batch_to_cut();
  for (const int ranks : {1, 2, 3, 8, 12}) {
    for (const ShardMode& mode : test::all_modes(ranks)) {
      const Runs runs(batch, make_partition(batch, mode, ranks));
      EXPECT_EQ(test::complaint_about(runs.batch(), runs.partition(), ranks), "");
      for (const Piece& piece : runs.partition().pieces) EXPECT_EQ(piece.chunks.size(), 1);
    }
  }
}

TEST(Runs, HaveTheOwnersOfTheirChunks) {
  const Batch batch = batch_to_cut();
  const Partition partition = make_partition(batch, {.kind = ShardMode::Kind::kKv}, 5);
  EXPECT_EQ(Runs(batch, partition).partition().ownerships, partition.ownerships);
}

TEST(Runs, LeaveRequestsInChunksWhoseHeadsAreCutInDifferentPlaces) {
  const Batch batch = test::planning_batch({64 * 6}, 4);
  const Partition partition{.mode = {ShardMode::Kind::kGrid, 2, 2},
                            .piece_offsets = {0, 1, 2, 3, 4},
                            .pieces = {{0, {0, 2}, {0, 3}},
                                       {0, {0, 2}, {3, 6}},
                                       {0, {2, 4}, {0, 2}},
                                       {0, {2, 4}, {2, 6}}},
                            .ownerships = {{0, {0, 2}, 0}, {0, {2, 4}, 3}}};
  const Runs runs(batch, partition);
  EXPECT_EQ(runs.partition().pieces, partition.pieces);
  EXPECT_EQ(runs.batch().num_chunks(runs.batch().requests[0]), 6);
}

/// What rank 1 of two has of a request of 14 chunks, cut in the middle: two nodes.
class RunsParts : public testing::Test {
 protected:
  RunsParts()
      : batch_(test::planning_batch({64 * 14}, kRows)),
        runs_(batch_, {.mode = {ShardMode::Kind::kKv},
                       .piece_offsets = {0, 1, 2},
                       .pieces = {{0, {0, kRows}, {0, 7}}, {0, {0, kRows}, {7, 14}}},
                       .ownerships = {{0, {0, kRows}, 0}}}),
        item_{.request = 0, .heads = {0, kRows}, .rows = {0, kRows}, .chunks = {7, 14}} {
    float next = 0;
    for (const TreeNode node : maximal_nodes(item_.chunks, 14)) {
      auto& floats = values_.emplace_back(partial_floats(kRows, kValueDims));
      for (float& value : floats) value = next += 0.25F;
      open_.nodes.push_back({node, partial_at(floats.data(), kRows, kValueDims)});
    }
  }

  static constexpr std::int64_t kRows = 19;
  Batch batch_;
  Runs runs_;
  WorkItem item_;
  std::vector<std::vector<float>> values_;
  kernels::OpenItem open_;
};

TEST_F(RunsParts, AreOfOneNodeAndMergeToIt) {
  ASSERT_EQ(open_.nodes.size(), 2U);
  const PartialView a = open_.nodes[0].partial;
  const PartialView b = open_.nodes[1].partial;
  std::vector<float> sums;
  for (std::int64_t r = 0; r < kRows; ++r) {
    sums.push_back(a.l[r] * std::exp2(a.m_log2[r] - b.m_log2[r]) + b.l[r]);  // b's m is larger
  }
  runs_.name_parts(item_, open_);
  join_parts(open_.nodes);
  ASSERT_EQ(open_.nodes.size(), 1U);
  EXPECT_EQ(open_.nodes[0].node, maximal_nodes(runs_.item(item_).chunks, 2).front());
  for (std::int64_t r = 0; r < kRows; ++r) {
    EXPECT_EQ(open_.nodes[0].partial.m_log2[r], b.m_log2[r]);
    EXPECT_FLOAT_EQ(open_.nodes[0].partial.l[r], sums[r]);
  }
}

TEST_F(RunsParts, AreRefusedIfOneIsMissingOrCountsTwice) {
  kernels::OpenItem fewer = open_;
  fewer.nodes.pop_back();
  EXPECT_THROW(runs_.name_parts(item_, fewer), MpiError);
  kernels::OpenItem twice = open_;
  twice.nodes.push_back(twice.nodes.back());
  EXPECT_THROW(runs_.name_parts(item_, twice), MpiError);
}

}  // namespace
}  // namespace mla::dist
