#pragma once

#include <compare>
#include <span>
#include <vector>

#include "core/batch.h"
#include "core/chunk_tree.h"
#include "core/partial_fold.h"
#include "core/partition.h"
#include "core/split_plan.h"

namespace mla::dist {

/// Whether other ranks have chunks of the piece's request and heads, too.
inline bool is_shared(const Batch& batch, const Piece& piece) {
  return piece.chunks != Range{0, batch.num_chunks(batch.requests[piece.request])};
}

/// The rows of an item that one rank owns, as an item of their own.
struct OwnedPart {
  WorkItem item;
  Range rows;  ///< of the whole item's rows, from 0
  int owner = 0;
};

/// `item`, one of `work_items` of some pieces of `partition`, by owners.
std::vector<OwnedPart> owned_parts(const Batch& batch, const Partition& partition,
                                   const WorkItem& item);

/// Some partials of one item: tree nodes, left to right.
struct WireItem {
  WorkItem item;
  std::vector<TreeNode> nodes;
};

/// @throws MpiError unless `here`, what a rank has of an item, are the nodes `expected` with all of
/// its rows; with `in_parts` a node may come in several parts, one after the other
void check_nodes(const WorkItem& item, std::span<const NodePartial> here,
                 std::span<const TreeNode> expected, bool in_parts);

/// What travels from one rank to another, in the order of the message.
struct Lot {
  int peer = 0;
  std::vector<WireItem> items;
};

/// One stage of the way that partials go, as one rank sees it. Lots are ordered by peer. After it,
/// a receiver folds what it has of each item into maximal nodes.
struct Hop {
  std::vector<Lot> sends;
  std::vector<Lot> receives;
  bool idle = true;  ///< nothing travels between any two ranks
};

/// Straight to the owners.
///
///     before: the maximal nodes of its own chunks    rank 0: a[0..3)   rank 1: a[3..4) b[0..4)
///     after:  the roots of the requests it owns      rank 0: a         rank 1: b
///
/// A pure function, so both sides of a message know its contents and no sizes are agreed on first.
Hop direct_hop(const Batch& batch, const Partition& partition, int rank);

/// The way over two levels. The first hop stays within nodes: on the owner's node partials go to
/// the owner, on each other node to one of the ranks that have chunks of the request there, another
/// one for each owner's heads. It folds what the node has and sends only that to the owner, in the
/// second hop.
///
///     node 0: rank 0  a[0..3)  -.                       node 1: rank 2  a[6..8)  -.
///             rank 1  a[3..6)  -'-> rank 0  a[0..6)             rank 3  a[8..16) -'-> rank 3
///                                      |                                                 |
///             rank 0  a  <-------------+------------------------ a[6..8) a[8..16) -------'
///
/// `node_of_rank` names each rank's node.
struct TwoLevelRoute {
  Hop within_nodes;
  Hop between_nodes;
};
TwoLevelRoute two_level_route(const Batch& batch, const Partition& partition, int rank,
                              std::span<const int> node_of_rank);

/// What tells items apart.
struct ItemKey {
  std::int64_t request = 0;
  std::int64_t first_head = 0;
  std::int64_t first_row = 0;

  explicit ItemKey(const WorkItem& item)
      : request(item.request), first_head(item.heads.begin), first_row(item.rows.begin) {}
  friend auto operator<=>(const ItemKey&, const ItemKey&) = default;
};

}  // namespace mla::dist
