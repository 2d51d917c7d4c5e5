#include "dist/route.h"

#include <algorithm>
#include <map>
#include <string>
#include <utility>

#include "core/error.h"

namespace mla::dist {
namespace {

/// What a rank has of an item that several ranks share.
struct Holding {
  int rank = 0;
  int owner = 0;
  WireItem item;
};

/// Whether a piece's partials meet others, or are another rank's. (The ranks that make_partition
/// gives whole requests to own them.)
bool travels(const Batch& batch, const Partition& partition, const Piece& piece, int rank) {
  return is_shared(batch, piece) ||
         owners_of(partition, piece.request, piece.heads).front().owner != rank;
}

/// What all ranks have before anything travels, by rank.
std::vector<Holding> shared_items(const Batch& batch, const Partition& partition) {
  std::vector<Holding> holdings;
  for (int rank = 0; rank < partition.ranks(); ++rank) {
    std::vector<Piece> shared;
    for (const Piece& piece : partition.pieces_of(rank)) {
      if (travels(batch, partition, piece, rank)) shared.push_back(piece);
    }
    for (const WorkItem& item : work_items(batch, shared)) {
      const auto nodes = maximal_nodes(item.chunks, batch.num_chunks(batch.requests[item.request]));
      for (const OwnedPart& part : owned_parts(batch, partition, item)) {
        holdings.push_back({rank, part.owner, {part.item, nodes}});
      }
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

/// The ranks that have partials of each item, by node.
using Sharers = std::map<std::pair<int, ItemKey>, std::vector<int>>;

Sharers sharers_of(const std::vector<Holding>& holdings, std::span<const int> node_of_rank) {
  Sharers sharers;
  for (const Holding& h : holdings) {
    sharers[{node_of_rank[h.rank], ItemKey(h.item.item)}].push_back(h.rank);
  }
  return sharers;
}

}  // namespace

std::vector<OwnedPart> owned_parts(const Batch& batch, const Partition& partition,
                                   const WorkItem& item) {
  const auto owners = owners_of(partition, item.request, item.heads);
  const Range rows{0, item.rows.size()};
  if (batch.requests[item.request].query_len > 1 || owners.size() == 1) {
    return {{item, rows, owners[0].owner}};
  }
  std::vector<OwnedPart> parts;  // of one query token: row r is head item.heads.begin + r
  for (const Ownership& o : owners) {
    const Range heads{std::max(o.heads.begin, item.heads.begin + item.rows.begin),
                      std::min(o.heads.end, item.heads.begin + item.rows.end)};
    if (heads.empty()) continue;
    WorkItem part = item;
    part.heads = heads;
    part.rows = {0, heads.size()};
    const std::int64_t first = heads.begin - item.heads.begin - item.rows.begin;
    parts.push_back({part, {first, first + heads.size()}, o.owner});
  }
  return parts;
}

void check_nodes(const WorkItem& item, std::span<const NodePartial> here,
                 std::span<const TreeNode> expected, bool in_parts) {
  std::size_t count = 0;
  bool fits = true;
  for (const NodePartial& node : here) {
    const bool is_next_part = in_parts && count > 0 && expected[count - 1] == node.node;
    if (!is_next_part) fits = fits && count < expected.size() && expected[count++] == node.node;
    fits = fits && node.partial.rows == item.rows.size();
  }
  if (!fits || count != expected.size()) {
    throw MpiError("exchange", "the partials of request " + std::to_string(item.request) +
                                   " at hand are not those of the partition");
  }
}

Hop direct_hop(const Batch& batch, const Partition& partition, int rank) {
  auto holdings = shared_items(batch, partition);
  return move_all(batch, rank, holdings, [](const Holding& h) { return h.owner; });
}

TwoLevelRoute two_level_route(const Batch& batch, const Partition& partition, int rank,
                              std::span<const int> node_of_rank) {
  auto holdings = shared_items(batch, partition);
  const Sharers sharers = sharers_of(holdings, node_of_rank);
  const auto collector = [&](const Holding& h) {
    const int node = node_of_rank[h.rank];
    if (node == node_of_rank[h.owner]) return h.owner;
    const std::vector<int>& ranks = sharers.at({node, ItemKey(h.item.item)});
    return ranks[static_cast<std::size_t>(h.owner) % ranks.size()];
  };
  TwoLevelRoute route;
  route.within_nodes = move_all(batch, rank, holdings, collector);
  route.between_nodes = move_all(batch, rank, holdings, [](const Holding& h) { return h.owner; });
  return route;
}

}  // namespace mla::dist
