#include "dist/held_partials.h"

#include <algorithm>
#include <string>

#include "core/chunk_tree.h"
#include "core/error.h"

namespace mla::dist {
namespace {

constexpr std::int64_t kRowsPerTask = 8;  // 16 KiB of each partial

void sort_by_chunks(std::vector<NodePartial>& nodes, std::int64_t num_chunks) {
  std::sort(nodes.begin(), nodes.end(), [=](const NodePartial& a, const NodePartial& b) {
    return chunks_of(a.node, num_chunks).begin < chunks_of(b.node, num_chunks).begin;
  });
}

/// The nodes that folding `nodes` leaves, each with the memory that its value lies in.
std::vector<NodePartial> after_fold(std::vector<NodePartial> nodes, std::int64_t num_chunks) {
  const std::int64_t rows = nodes[0].partial.rows;
  for (NodePartial& node : nodes) node.partial.rows = 0;  // nothing is merged
  fold_partials(nodes, num_chunks);
  for (NodePartial& node : nodes) node.partial.rows = rows;
  return nodes;
}

}  // namespace

std::int64_t HeldPartials::num_chunks(const WorkItem& item) const {
  return batch_.num_chunks(batch_.requests[item.request]);
}

void HeldPartials::add(const WorkItem& item, std::span<const NodePartial> nodes) {
  Held& held = held_.try_emplace(ItemKey(item), Held{item, {}}).first->second;
  held.nodes.insert(held.nodes.end(), nodes.begin(), nodes.end());
}

std::vector<NodePartial> HeldPartials::take(const WorkItem& item) {
  auto held = held_.extract(ItemKey(item));
  if (held.empty()) return {};
  return std::move(held.mapped().nodes);
}

/// Merges some rows, counted from 0, of all nodes; with `results` it finishes them, too.
void HeldPartials::fold_rows(const Held& held, Range rows, ResultSink* results) const {
  std::vector<NodePartial> nodes;
  for (const NodePartial& node : held.nodes) {
    nodes.push_back({node.node, rows_of(node.partial, rows)});
  }
  fold_partials(nodes, num_chunks(held.item));
  if (results == nullptr || !is_root(nodes, num_chunks(held.item))) return;
  WorkItem item = held.item;
  item.rows = {held.item.rows.begin + rows.begin, held.item.rows.begin + rows.end};
  results->finish(item, nodes[0].partial);
}

void HeldPartials::fold_all(int threads, ResultSink* results) {
  struct Task {
    const Held* held = nullptr;
    Range rows;
  };
  std::vector<Task> tasks;
  for (auto& [key, held] : held_) {
    sort_by_chunks(held.nodes, num_chunks(held.item));
    const std::int64_t rows = held.item.rows.size();
    for (std::int64_t row = 0; row < rows; row += kRowsPerTask) {
      tasks.push_back({&held, {row, std::min(rows, row + kRowsPerTask)}});
    }
  }
  const auto count = static_cast<std::int64_t>(tasks.size());
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads) if (threads > 1)
  for (std::int64_t t = 0; t < count; ++t) fold_rows(*tasks[t].held, tasks[t].rows, results);
  for (auto& [key, held] : held_) {
    held.nodes = after_fold(std::move(held.nodes), num_chunks(held.item));
  }
}

void HeldPartials::fold(int threads) {
  fold_all(threads, nullptr);
}

void HeldPartials::finish(int threads, ResultSink& results) {
  fold_all(threads, &results);
  for (const auto& [key, held] : held_) {
    if (!is_root(held.nodes, num_chunks(held.item))) {
      throw MpiError("combine", "the partials of request " + std::to_string(key.request) +
                                    " do not cover each of its chunks once");
    }
  }
  held_.clear();
}

}  // namespace mla::dist
