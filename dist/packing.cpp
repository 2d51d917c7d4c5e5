#include "dist/packing.h"

#include <string>

#include "core/error.h"

namespace mla::dist {

void Packing::add(std::vector<NodePartial> nodes, bool in_parts) {
  const WireItem& item = message_.items()[partials_.size()];
  std::vector<TreeNode> names;
  bool fits = true;
  for (const NodePartial& node : nodes) {
    const bool is_next_part = in_parts && !names.empty() && names.back() == node.node;
    if (!is_next_part) names.push_back(node.node);
    fits = fits && node.partial.rows == item.item.rows.size();
  }
  if (!fits || names != item.nodes) {
    throw MpiError("exchange", "the partials of request " + std::to_string(item.item.request) +
                                   " at hand are not those of the partition");
  }
  partials_.push_back(std::move(nodes));
}

void pack(std::span<Packing> packings, bool in_parts, int threads) {
  struct Task {
    Packing* packing = nullptr;
    std::size_t item = 0;
    std::int64_t block = 0;
  };
  std::vector<Task> tasks;
  for (Packing& packing : packings) {
    packing.message_.write_header();
    for (std::size_t i = 0; i < packing.partials_.size(); ++i) {
      const std::int64_t rows = packing.message_.items()[i].item.rows.size();
      for (std::int64_t b = 0; b < count_blocks(rows); ++b) tasks.push_back({&packing, i, b});
    }
  }
  const auto count = std::ssize(tasks);
#pragma omp parallel num_threads(threads) if (threads > 1)
  {
    std::vector<NodePartial> nodes;
#pragma omp for schedule(dynamic, 1)
    for (std::int64_t t = 0; t < count; ++t) {
      const auto& [packing, item, block] = tasks[t];
      nodes = packing->partials_[item];
      for (NodePartial& node : nodes) {
        node.partial = rows_of(node.partial, rows_of_block(block, node.partial.rows));
      }
      if (in_parts) join_parts(nodes);
      for (std::size_t n = 0; n < nodes.size(); ++n) {
        packing->message_.write({item, block, n}, nodes[n].partial);
      }
    }
  }
}

}  // namespace mla::dist
