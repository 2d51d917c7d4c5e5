#include "dist/packing.h"

#include <algorithm>
#include <utility>

#include <omp.h>

namespace mla::dist {

void Packing::add(std::vector<NodePartial> nodes, bool in_parts) {
  const WireItem& item = message_->items()[partials_.size()];
  check_nodes(item.item, nodes, item.nodes, in_parts);
  partials_.push_back(std::move(nodes));
}

void pack(std::span<Packing> packings, bool in_parts, int threads) {
  struct Task {
    Packing* packing = nullptr;
    std::size_t item = 0;
    std::int64_t block = 0;
  };
  std::vector<Task> tasks;
  std::size_t most_nodes = 0;
  for (Packing& packing : packings) {
    packing.message_->write_header();
    for (std::size_t i = 0; i < packing.partials_.size(); ++i) {
      const std::int64_t rows = packing.message_->items()[i].item.rows.size();
      for (std::int64_t b = 0; b < count_blocks(rows); ++b) tasks.push_back({&packing, i, b});
      most_nodes = std::max(most_nodes, packing.partials_[i].size());
    }
  }
  // Memory that cannot be had must not be noticed on the threads, which have nobody to tell.
  std::vector<std::vector<NodePartial>> rooms(threads);
  for (std::vector<NodePartial>& room : rooms) room.reserve(most_nodes);
  const auto count = std::ssize(tasks);
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads) if (threads > 1)
  for (std::int64_t t = 0; t < count; ++t) {
    const auto& [packing, item, block] = tasks[t];
    std::vector<NodePartial>& nodes = rooms[omp_get_thread_num()];
    nodes = packing->partials_[item];
    for (NodePartial& node : nodes) {
      node.partial = rows_of(node.partial, rows_of_block(block, node.partial.rows));
    }
    if (in_parts) join_parts(nodes);
    for (std::size_t n = 0; n < nodes.size(); ++n) {
      packing->message_->write({item, block, n}, nodes[n].partial);
    }
  }
}

}  // namespace mla::dist
