#include "dist/work_groups.h"

#include <algorithm>
#include <set>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "dist/route.h"
#include "tests/dist/problem.h"

namespace mla::dist {
namespace {

constexpr MlaShape kShape{.h_q = 6, .h_kv = 1, .d_qk = 40, .d_v = 32};

Problem many_requests() {
  std::vector<Problem::Lengths> lengths(60, {1, 64 * 11});
  lengths.push_back({1, 0});
  lengths.push_back({1, 64 * 70});
  return {kShape, lengths, 1};
}

std::vector<WorkGroup> groups_of(const Problem& problem, const Partition& partition, int rank,
                                 int threads) {
  return group_work(problem.batch(), partition, rank, problem.inputs(partition.pieces_of(rank)),
                    threads);
}

TEST(WorkGroups, HoldEveryPieceAndOwnershipOnce) {
  const Problem problem = many_requests();
  for (const int ranks : {1, 2, 5}) {
    for (const ShardMode::Kind kind :
         {ShardMode::Kind::kKv, ShardMode::Kind::kHeads, ShardMode::Kind::kBatch}) {
      const Partition partition = make_partition(problem.batch(), {.kind = kind}, ranks);
      std::size_t owned = 0;
      for (int rank = 0; rank < ranks; ++rank) {
        std::vector<Piece> pieces;
        for (const WorkGroup& group : groups_of(problem, partition, rank, 1)) {
          EXPECT_EQ(group.inputs.pieces.size(), group.pieces.size());
          EXPECT_EQ(group.inputs.kv.data, problem.inputs({}).kv.data);
          pieces.insert(pieces.end(), group.pieces.begin(), group.pieces.end());
          owned += group.owned.size();
        }
        const auto expected = partition.pieces_of(rank);
        EXPECT_TRUE(
            std::is_permutation(pieces.begin(), pieces.end(), expected.begin(), expected.end()));
      }
      EXPECT_EQ(owned, partition.ownerships.size());
    }
  }
}

TEST(WorkGroups, BeginWithWhatOtherRanksWaitFor) {
  const Problem problem = many_requests();
  const Partition partition = make_partition(problem.batch(), {.kind = ShardMode::Kind::kKv}, 4);
  for (int rank = 0; rank < 4; ++rank) {
    const auto groups = groups_of(problem, partition, rank, 1);
    ASSERT_GT(groups.size(), 1U);
    for (const Piece& piece : groups[0].pieces) EXPECT_TRUE(is_shared(problem.batch(), piece));
    for (std::size_t g = 1; g < groups.size(); ++g) {
      EXPECT_FALSE(groups[g].pieces.empty());
      EXPECT_EQ(groups[g].owned.size(), groups[g].pieces.size());
      for (const Piece& piece : groups[g].pieces) EXPECT_FALSE(is_shared(problem.batch(), piece));
    }
  }
}

TEST(WorkGroups, AreOneWhereThreadsWouldHaveTooFewChunksOfEach) {
  const Problem problem = many_requests();
  const Partition partition = make_partition(problem.batch(), {.kind = ShardMode::Kind::kKv}, 4);
  EXPECT_EQ(groups_of(problem, partition, 1, 64).size(), 1U);
}

}  // namespace
}  // namespace mla::dist
