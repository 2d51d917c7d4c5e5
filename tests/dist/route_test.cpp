#include "dist/route.h"

#include <algorithm>
#include <map>
#include <vector>

#include <gtest/gtest.h>

#include "tests/dist/problem.h"

namespace mla::dist {
namespace {

constexpr MlaShape kRouteShape{.h_q = 6, .h_kv = 1, .d_qk = 40, .d_v = 32};

Batch some_batch() {
  return Problem(kRouteShape, {{1, 64 * 37}, {2, 64 * 5}, {1, 1}, {1, 64 * 90 + 3}, {1, 64 * 9}}, 1)
      .batch();
}

std::vector<int> nodes_of(int ranks, int ranks_per_node) {
  std::vector<int> nodes;
  for (int r = 0; r < ranks; ++r) nodes.push_back(r / ranks_per_node);
  return nodes;
}

/// What a rank sends in a hop is what its peers expect of it.
template <class HopOf>
void expect_both_sides_agree(int ranks, HopOf hop_of) {
  for (int from = 0; from < ranks; ++from) {
    for (const Lot& sent : hop_of(from).sends) {
      const Hop there = hop_of(sent.peer);
      const auto received = std::find_if(there.receives.begin(), there.receives.end(),
                                         [&](const Lot& lot) { return lot.peer == from; });
      ASSERT_NE(received, there.receives.end());
      ASSERT_EQ(received->items.size(), sent.items.size());
      for (std::size_t i = 0; i < sent.items.size(); ++i) {
        EXPECT_EQ(ItemKey(received->items[i].item), ItemKey(sent.items[i].item));
        EXPECT_EQ(received->items[i].nodes, sent.items[i].nodes);
      }
    }
  }
}

TEST(Route, BothSidesOfAMessageKnowItsContents) {
  const Batch batch = some_batch();
  for (const int ranks : {2, 3, 8, 13}) {
    const Partition partition = make_partition(batch, {.kind = ShardMode::Kind::kKv}, ranks);
    expect_both_sides_agree(ranks, [&](int r) { return direct_hop(batch, partition, r); });
    for (const int per_node : {1, 2, 5}) {
      const auto nodes = nodes_of(ranks, per_node);
      const auto route = [&](int r) { return two_level_route(batch, partition, r, nodes); };
      expect_both_sides_agree(ranks, [&](int r) { return route(r).within_nodes; });
      expect_both_sides_agree(ranks, [&](int r) { return route(r).between_nodes; });
    }
  }
}

TEST(Route, TheFirstOfTwoHopsStaysWithinNodes) {
  const Batch batch = some_batch();
  const auto nodes = nodes_of(9, 3);
  const Partition partition = make_partition(batch, {.kind = ShardMode::Kind::kKv}, 9);
  for (int rank = 0; rank < 9; ++rank) {
    const auto route = two_level_route(batch, partition, rank, nodes);
    for (const Lot& lot : route.within_nodes.sends) EXPECT_EQ(nodes[lot.peer], nodes[rank]);
    for (const Lot& lot : route.between_nodes.sends) EXPECT_NE(nodes[lot.peer], nodes[rank]);
  }
}

TEST(Route, OneMessageForEachItemLeavesANode) {
  const Batch batch = Problem(kRouteShape, {{1, 64 * 64}}, 1).batch();
  const auto nodes = nodes_of(8, 4);
  const Partition partition = make_partition(batch, {.kind = ShardMode::Kind::kKv}, 8);
  std::vector<WireItem> between;
  for (int rank = 0; rank < 8; ++rank) {
    for (const Lot& lot : two_level_route(batch, partition, rank, nodes).between_nodes.sends) {
      between.insert(between.end(), lot.items.begin(), lot.items.end());
    }
  }
  ASSERT_EQ(between.size(), 1U);
  EXPECT_EQ(between[0].nodes, (std::vector<TreeNode>{{5, 1}}));
}

TEST(Route, OnOneNodeNothingTravelsBetweenNodes) {
  const Batch batch = some_batch();
  const Partition partition = make_partition(batch, {.kind = ShardMode::Kind::kKv}, 4);
  EXPECT_FALSE(two_level_route(batch, partition, 0, nodes_of(4, 4)).within_nodes.idle);
  EXPECT_TRUE(two_level_route(batch, partition, 0, nodes_of(4, 4)).between_nodes.idle);
}

TEST(Route, WholeRequestsTravelToAnOwnerElsewhere) {
  const Batch batch = Problem(kRouteShape, {{1, 64 * 9}}, 1).batch();
  Partition partition = make_partition(batch, {.kind = ShardMode::Kind::kBatch}, 2);
  const int holder = partition.ownerships[0].owner;
  partition.ownerships[0].owner = 1 - holder;
  const Hop hop = direct_hop(batch, partition, holder);
  ASSERT_EQ(hop.sends.size(), 1U);
  EXPECT_EQ(hop.sends[0].peer, 1 - holder);
  EXPECT_EQ(hop.sends[0].items[0].nodes, (std::vector<TreeNode>{{root_level(9), 0}}));
}

TEST(Route, IsIdleWhereNoRequestIsShared) {
  const Batch batch = some_batch();
  EXPECT_TRUE(
      direct_hop(batch, make_partition(batch, {.kind = ShardMode::Kind::kBatch}, 3), 0).idle);
  EXPECT_TRUE(direct_hop(batch, make_partition(batch, {.kind = ShardMode::Kind::kKv}, 1), 0).idle);
}

}  // namespace
}  // namespace mla::dist
