#include "core/chunk_tree.h"

#include <algorithm>
#include <bit>

namespace mla {
namespace {

/// The largest node that starts at chunk `begin` and covers no chunk past `end`.
TreeNode largest_node(std::int64_t begin, std::int64_t end, std::int64_t num_chunks) {
  TreeNode node{0, begin};
  const int root = root_level(num_chunks);
  while (node.level < root && node.index % 2 == 0) {
    const TreeNode parent{node.level + 1, node.index / 2};
    if (chunks_of(parent, num_chunks).end > end) break;
    node = parent;
  }
  return node;
}

template <class Visit>
void visit_maximal_nodes(Range range, std::int64_t num_chunks, Visit visit) {
  for (std::int64_t chunk = range.begin; chunk < range.end;) {
    const TreeNode node = largest_node(chunk, range.end, num_chunks);
    visit(node);
    chunk = chunks_of(node, num_chunks).end;
  }
}

}  // namespace

int root_level(std::int64_t num_chunks) {
  return static_cast<int>(std::bit_width(static_cast<std::uint64_t>(num_chunks - 1)));
}

Range chunks_of(TreeNode node, std::int64_t num_chunks) {
  return {std::min(node.index << node.level, num_chunks),
          std::min((node.index + 1) << node.level, num_chunks)};
}

std::vector<TreeNode> maximal_nodes(Range range, std::int64_t num_chunks) {
  std::vector<TreeNode> nodes;
  visit_maximal_nodes(range, num_chunks, [&](TreeNode node) { nodes.push_back(node); });
  return nodes;
}

std::int64_t count_maximal_nodes(Range range, std::int64_t num_chunks) {
  std::int64_t count = 0;
  visit_maximal_nodes(range, num_chunks, [&](TreeNode) { ++count; });
  return count;
}

std::int64_t max_fold_depth(std::int64_t num_chunks) {
  return num_chunks < 1 ? 1 : 2 * root_level(num_chunks) + 2;
}

void TreeFold::push(TreeNode node) {
  stack_[size_++] = node;
  promote_lone_nodes();
}

bool TreeFold::combine() {
  if (size_ < 2) return false;
  const TreeNode left = stack_[size_ - 2];
  const TreeNode right = stack_[size_ - 1];
  if (left.level != right.level || left.index % 2 != 0 || right.index != left.index + 1) {
    return false;
  }
  --size_;
  stack_[size_ - 1] = {left.level + 1, left.index / 2};
  promote_lone_nodes();
  return true;
}

void TreeFold::promote_lone_nodes() {
  TreeNode& top = stack_[size_ - 1];
  const int root = root_level(num_chunks_);
  while (top.level < root && top.index % 2 == 0 && (top.index + 1) << top.level >= num_chunks_) {
    top = {top.level + 1, top.index / 2};
  }
}

}  // namespace mla
