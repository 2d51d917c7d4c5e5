#include "dist/route.h"

#include <algorithm>
#include <map>
#include <tuple>
#include <utility>

namespace mla::dist {
namespace {

/// What a rank has of an item that several ranks share.
struct Holding {
  int rank = 0;
  int owner = 0;
  WireItem item;
};

/// What all ranks have before anything travels, by rank.
std::vector<Holding> shared_items(const Batch& batch, const Partition& partition) {
  std::vector<Holding> holdings;
  for (int rank = 0; rank < partition.ranks(); ++rank) {
    std::vector<Piece> shared;
    for (const Piece& piece : partition.pieces_of(rank)) {
      if (is_shared(batch, piece)) shared.push_back(piece);
    }
    for (const WorkItem& item : work_items(batch, shared)) {
      const std::int64_t num_chunks = batch.num_chunks(batch.requests[item.request]);
      holdings.push_back({rank,
                          owner_of(partition, shared[item.piece]),
                          {item, maximal_nodes(item.chunks, num_chunks)}});
    }
  }
  return holdings;
}

std::vector<TreeNode> folded(std::vector<TreeNode> nodes, std::int64_t num_chunks) {
  std::sort(nodes.begin(), nodes.end(), [&](TreeNode a, TreeNode b) {
    return chunks_of(a, num_chunks).begin < chunks_of(b, num_chunks).begin;
  });
  TreeFold fold(num_chunks);
  for (const TreeNode node : nodes) {
    fold.push(node);
    while (fold.combine()) {
    }
  }
  nodes.clear();
  for (int slot = 0; slot < fold.size(); ++slot) nodes.push_back(fold[slot]);
  return nodes;
}

std::vector<Lot> lots_of(std::map<int, std::vector<WireItem>> by_peer) {
  std::vector<Lot> lots;
  for (auto& [peer, items] : by_peer) lots.push_back({peer, std::move(items)});
  return lots;
}

/// Moves every holding to `target(holding)`; returns what `rank` sees of it. Afterwards `holdings`
/// are those of the receivers.
template <class Target>
Hop move_all(const Batch& batch, int rank, std::vector<Holding>& holdings, Target target) {
  Hop hop;
  std::map<int, std::vector<WireItem>> sends;
  std::map<int, std::vector<WireItem>> receives;
  std::map<std::pair<int, ItemKey>, Holding> moved;
  for (const Holding& holding : holdings) {
    const int to = target(holding);
    if (to != holding.rank) {
      hop.idle = false;
      if (holding.rank == rank) sends[to].push_back(holding.item);
      if (to == rank) receives[holding.rank].push_back(holding.item);
    }
    const auto [place, is_new] =
        moved.try_emplace({to, ItemKey(holding.item.item)}, Holding{to, holding.owner, {}});
    WireItem& there = place->second.item;
    if (is_new) there.item = holding.item.item;
    there.nodes.insert(there.nodes.end(), holding.item.nodes.begin(), holding.item.nodes.end());
  }
  holdings.clear();
  for (auto& [place, holding] : moved) {
    const Request& request = batch.requests[holding.item.item.request];
    holding.item.nodes = folded(std::move(holding.item.nodes), batch.num_chunks(request));
    holdings.push_back(std::move(holding));
  }
  hop.sends = lots_of(std::move(sends));
  hop.receives = lots_of(std::move(receives));
  return hop;
}

using NodeItem = std::tuple<int, std::int64_t, std::int64_t>;  // node, request, first head

/// The rank that has most chunks of an item on each node, the first among equals.
std::map<NodeItem, int> collectors_of(const std::vector<Holding>& holdings,
                                      std::span<const int> node_of_rank) {
  std::map<NodeItem, std::pair<std::int64_t, int>> most;
  for (const Holding& holding : holdings) {
    const WorkItem& item = holding.item.item;
    auto& best = most[{node_of_rank[holding.rank], item.request, item.heads.begin}];
    if (item.chunks.size() > best.first) best = {item.chunks.size(), holding.rank};
  }
  std::map<NodeItem, int> collectors;
  for (const auto& [item, best] : most) collectors[item] = best.second;
  return collectors;
}

}  // namespace

Hop direct_hop(const Batch& batch, const Partition& partition, int rank) {
  auto holdings = shared_items(batch, partition);
  return move_all(batch, rank, holdings, [](const Holding& h) { return h.owner; });
}

TwoLevelRoute two_level_route(const Batch& batch, const Partition& partition, int rank,
                              std::span<const int> node_of_rank) {
  auto holdings = shared_items(batch, partition);
  const auto collectors = collectors_of(holdings, node_of_rank);
  const auto collector = [&](const Holding& h) {
    const int node = node_of_rank[h.rank];
    if (node == node_of_rank[h.owner]) return h.owner;
    return collectors.at({node, h.item.item.request, h.item.item.heads.begin});
  };
  TwoLevelRoute route;
  route.within_nodes = move_all(batch, rank, holdings, collector);
  route.between_nodes = move_all(batch, rank, holdings, [](const Holding& h) { return h.owner; });
  return route;
}

}  // namespace mla::dist
