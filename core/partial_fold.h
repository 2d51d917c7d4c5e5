#pragma once

#include <cstdint>
#include <vector>

#include "core/chunk_tree.h"
#include "core/partial.h"

namespace mla {

/// A partial together with the tree node it is the value of. The memory is not owned.
struct NodePartial {
  TreeNode node;
  PartialView partial;
};

/// Folds `nodes`, which follow one another from left to right in the tree over `num_chunks`, into
/// their maximal nodes. Each merge happens in the memory of its left side; `nodes` keeps what is
/// left. Allocates nothing.
void fold_partials(std::vector<NodePartial>& nodes, std::int64_t num_chunks);

/// Merges neighbours that are parts of one node into the first of them, in their order.
void join_parts(std::vector<NodePartial>& nodes);

/// True when `nodes` is the root alone, that is, the whole request has been folded.
bool is_root(const std::vector<NodePartial>& nodes, std::int64_t num_chunks);

}  // namespace mla
