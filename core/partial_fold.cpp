#include "core/partial_fold.h"

namespace mla {

void fold_partials(std::vector<NodePartial>& nodes, std::int64_t num_chunks) {
  TreeFold fold(num_chunks);
  std::vector<NodePartial> stack;
  for (const NodePartial& next : nodes) {
    fold.push(next.node);
    stack.push_back(next);
    while (fold.combine()) {
      merge_partials(stack[stack.size() - 2].partial, stack.back().partial);
      stack.pop_back();
    }
  }
  for (std::size_t slot = 0; slot < stack.size(); ++slot) {
    stack[slot].node = fold[static_cast<int>(slot)];
  }
  nodes = std::move(stack);
}

bool is_root(const std::vector<NodePartial>& nodes, std::int64_t num_chunks) {
  return nodes.size() == 1 && nodes[0].node == TreeNode{root_level(num_chunks), 0};
}

}  // namespace mla
