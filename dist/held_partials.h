#pragma once

#include <map>
#include <span>
#include <vector>

#include "core/aligned_buffer.h"
#include "core/batch.h"
#include "core/partial_fold.h"
#include "core/result_sink.h"
#include "dist/route.h"
#include "dist/wire.h"

namespace mla::dist {

/// The partials of shared requests that are on this rank, by item. Their memory is not owned.
/// Records of messages are checked when they are merged, block of rows by block, so that a core
/// fetches them once.
class HeldPartials {
 public:
  /// With `in_parts` a node may be added in parts, whose merging is left to us.
  HeldPartials(const Batch& batch, bool in_parts);
  HeldPartials(const HeldPartials&) = delete;
  HeldPartials& operator=(const HeldPartials&) = delete;
  ~HeldPartials();

  /// Rows `rows` of some nodes, which are those of `item`, that are not here yet.
  void add(const WorkItem& item, Range rows, std::span<const NodePartial> nodes);
  /// The nodes of an item of a message, which must stay until they are folded, and may be written
  /// to.
  void add(const Message& message, std::size_t item);

  /// The nodes of an item, in parts still, which are not held any more; none if there are none.
  /// They have been added as partials, or folded.
  std::vector<NodePartial> take(const WorkItem& item);

  /// Folds the nodes of each item into maximal ones, on `threads` threads, in place or in memory of
  /// its own, which stays until finish(). @throws MpiError if a message is damaged
  void fold(int threads);

  /// Folds all, and finishes every item into `results`; then nothing is held.
  /// @throws MpiError if a message is damaged, or unless the nodes of each item cover all its
  /// chunks once; of nodes in parts only what comes in messages is known to be there once. Some
  /// rows may have been finished then.
  void finish(int threads, ResultSink& results);

 private:
  /// A node whose value lies in `partial`, in a message, or, while it is opened, in both.
  struct Node {
    NodePartial value;
    const Message* message = nullptr;
    std::size_t item = 0;   // of the message
    std::size_t index = 0;  // of the item's nodes
  };
  struct Held {
    WorkItem item;
    std::vector<Node> nodes;
  };
  /// A record that is not sound.
  struct Fault {
    const Message* message = nullptr;
    Message::Place place;
  };
  class Folder;

  std::int64_t num_chunks(const WorkItem& item) const;
  void make_room();
  void check_parts(const Held& held) const;
  void fold_all(int threads, ResultSink* results);
  void fold_nodes(Held& held) const;

  const Batch& batch_;
  bool in_parts_;
  std::map<ItemKey, Held> held_;             // those without nodes are kept for the next time
  std::vector<Folder> folders_;              // [threads]
  std::vector<AlignedBuffer<float>> rooms_;  // of what fold() has opened
};

}  // namespace mla::dist
