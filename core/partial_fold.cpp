#include "core/partial_fold.h"

#include "core/every_cpu.h"

namespace mla {

MLA_FOR_EVERY_CPU
void fold_partials(std::vector<NodePartial>& nodes, std::int64_t num_chunks) {
  TreeFold fold(num_chunks);  // slot i of its stack is nodes[i]; never ahead of what is read
  for (std::size_t next = 0; next < nodes.size(); ++next) {
    nodes[static_cast<std::size_t>(fold.size())] = nodes[next];
    fold.push(nodes[next].node);
    while (fold.combine()) {
      const auto left = static_cast<std::size_t>(fold.size() - 1);
      merge_partials(nodes[left].partial, nodes[left + 1].partial);
    }
  }
  nodes.erase(nodes.begin() + fold.size(), nodes.end());
  for (int slot = 0; slot < fold.size(); ++slot) nodes[slot].node = fold[slot];
}

MLA_FOR_EVERY_CPU
void join_parts(std::vector<NodePartial>& nodes) {
  std::size_t count = 0;
  for (const NodePartial& part : nodes) {
    if (count > 0 && nodes[count - 1].node == part.node) {
      merge_partials(nodes[count - 1].partial, part.partial);
    } else {
      nodes[count++] = part;
    }
  }
  nodes.resize(count);
}

bool is_root(const std::vector<NodePartial>& nodes, std::int64_t num_chunks) {
  return nodes.size() == 1 && nodes[0].node == TreeNode{root_level(num_chunks), 0};
}

}  // namespace mla
