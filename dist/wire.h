#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/batch.h"
#include "core/partial_fold.h"
#include "core/partition.h"
#include "core/split_plan.h"
#include "dist/exchange.h"

namespace mla::dist {

/// The partials of one item that one rank sends to its owner: the maximal nodes of the sender's
/// chunks.
struct WireItem {
  WorkItem item;
  std::vector<TreeNode> nodes;
};

/// What rank `from` sends to rank `to`, in the order of the message. Both sides compute it from the
/// partition, so sizes and places need no agreement; the message repeats them to be checked.
std::vector<WireItem> wire_items(const Batch& batch, const Partition& partition, int from, int to);

/// Bytes of the message that carries `items`; 0 if there are none.
std::int64_t message_bytes(const Batch& batch, std::span<const WireItem> items);

/// A message to `to`. It starts with a header that names the format: magic, element type (fp32),
/// base of the exponentials (2), number of nodes, bytes; each node follows with its place in the
/// batch and m[rows], l[rows], o[rows, d_v].
class MessagePacker {
 public:
  /// `items` is not empty.
  MessagePacker(const Batch& batch, std::span<const WireItem> items, int to);
  /// Adds the node's partial; nodes come in the order of `items`.
  void add(const WorkItem& item, const NodePartial& node);
  /// @throws MpiError if not all nodes were added.
  Message finish();

 private:
  Message message_;
  std::int64_t position_ = 0;
};

/// The partials in `message`, by item as in `expected`; they point into the message.
/// @throws MpiError if the message is not what the partition says it must be.
std::vector<std::vector<NodePartial>> unpack_message(const Batch& batch,
                                                     std::span<const WireItem> expected,
                                                     Message& message);

}  // namespace mla::dist
