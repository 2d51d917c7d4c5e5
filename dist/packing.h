#pragma once

#include <span>
#include <vector>

#include "core/partial_fold.h"
#include "dist/wire.h"

namespace mla::dist {

/// A message to be written, and the partials that go into it.
class Packing {
 public:
  /// The message must outlive it.
  explicit Packing(Message& message) : message_(&message) {}

  /// The nodes of the message's next item; with `in_parts` each may come in several parts.
  /// @throws MpiError if they are others than the item's, or have other rows
  void add(std::vector<NodePartial> nodes, bool in_parts);

 private:
  friend void pack(std::span<Packing> packings, bool in_parts, int threads);

  Message* message_;
  std::vector<std::vector<NodePartial>> partials_;  // by item
};

/// Writes complete messages on `threads` threads, and merges parts into whole nodes before.
void pack(std::span<Packing> packings, bool in_parts, int threads);

}  // namespace mla::dist
