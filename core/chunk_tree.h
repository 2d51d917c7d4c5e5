#pragma once

#include <cstdint>
#include <vector>

#include "core/range.h"

namespace mla {

/// A node of the canonical tree, that of pairwise summation (Higham 1993), over the chunks [0,
/// num_chunks) of one request. Level 0 are the chunks; the node (level, index) covers the chunks
/// [index << level, (index + 1) << level) that exist. A node without a right sibling passes up
/// unchanged.
///
///   level 2          (2,0)                 num_chunks = 3: chunk 2 is lone on level 0 and
///                   /     \                passes up to (1,1).
///   level 1      (1,0)   (1,1)
///               /    \     |
///   level 0  (0,0) (0,1) (0,2)
struct TreeNode {
  int level = 0;
  std::int64_t index = 0;

  friend bool operator==(const TreeNode&, const TreeNode&) = default;
};

/// Level of the root: the smallest L with 2^L >= num_chunks. Needs num_chunks >= 1.
int root_level(std::int64_t num_chunks);

/// The chunks that a node covers.
Range chunks_of(TreeNode node, std::int64_t num_chunks);

/// The fewest tree nodes that cover exactly the chunks `range` of [0, num_chunks), left to right.
std::vector<TreeNode> maximal_nodes(Range range, std::int64_t num_chunks);

/// `maximal_nodes(range, num_chunks).size()` without building the list.
std::int64_t count_maximal_nodes(Range range, std::int64_t num_chunks);

/// The largest number of nodes that folding any range of [0, num_chunks) keeps at a time.
std::int64_t max_fold_depth(std::int64_t num_chunks);

/// Folds nodes that arrive from left to right into the maximal nodes of what has arrived. It keeps
/// the bookkeeping; the caller keeps one buffer per stack slot:
///   fold.push(node)        the node's value lies in buffer fold.size() before the call
///   while (fold.combine()) merge buffer fold.size() into buffer fold.size() - 1
/// Because merges happen only between siblings, the order of additions is that of the canonical
/// tree, whoever does them and however the chunks were dealt out. Allocates nothing.
class TreeFold {
 public:
  /// `num_chunks` of the whole request.
  explicit TreeFold(std::int64_t num_chunks) : num_chunks_(num_chunks) {}

  int size() const { return size_; }
  TreeNode operator[](int slot) const { return stack_[slot]; }

  /// Adds the node right of all earlier ones.
  void push(TreeNode node);

  /// True when the two topmost nodes were siblings: they are now one node, in slot size() - 1, and
  /// the caller must merge the buffer in slot size() into it.
  bool combine();

 private:
  static constexpr int kMaxDepth = 128;  // two per level of a 64-bit chunk index

  void promote_lone_nodes();

  std::int64_t num_chunks_;
  int size_ = 0;
  TreeNode stack_[kMaxDepth];
};

}  // namespace mla
