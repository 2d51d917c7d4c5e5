#include "dist/held_partials.h"

#include <algorithm>
#include <optional>
#include <string>

#include <omp.h>

#include "core/chunk_tree.h"
#include "core/error.h"

namespace mla::dist {

/// Folds blocks of rows, one after the other, in memory that it keeps. One for each thread.
class HeldPartials::Folder {
 public:
  /// What the largest block takes.
  struct Room {
    std::size_t nodes = 0;
    std::size_t floats = 0;
  };

  static Room room_for(const HeldPartials& all) {
    Room most;
    for (const auto& [key, held] : all.held_) {
      const auto to_open = std::count_if(held.nodes.begin(), held.nodes.end(), needs_room);
      const std::int64_t rows = most_rows_of_block(held.item.rows.size());
      const std::int64_t floats = to_open * partial_floats(rows, all.batch_.shape.d_v);
      most.nodes = std::max(most.nodes, held.nodes.size());
      most.floats = std::max(most.floats, static_cast<std::size_t>(floats));
    }
    return most;
  }

  /// A fold allocates nothing.
  void reserve(const Room& room) {
    nodes_.reserve(room.nodes);
    if (room_.size() < room.floats) room_ = AlignedBuffer<float>(room.floats);
  }

  /// Empty if all records were sound; else the rows are left as they are.
  std::optional<Fault> fold(const HeldPartials& all, const Held& held, std::int64_t block,
                            ResultSink* results) {
    const std::int64_t d_v = all.batch_.shape.d_v;
    const Range rows = rows_of_block(block, held.item.rows.size());
    nodes_.clear();
    float* room = room_.data();
    for (const Node& node : held.nodes) {
      PartialView view;
      if (needs_room(node)) {
        view = partial_at(room, rows.size(), d_v);
        room += partial_floats(rows.size(), d_v);
      } else if (node.value.partial.o != nullptr) {
        view = rows_of(node.value.partial, rows);
      }
      if (node.message != nullptr) {
        const Message::Place place{node.item, block, node.index};
        if (!node.message->is_sound(place)) return Fault{node.message, place};
        view = node.message->open(place, view);
      }
      nodes_.push_back({node.value.node, view});
    }
    const std::int64_t num_chunks = all.num_chunks(held.item);
    if (all.in_parts_) join_parts(nodes_);
    fold_partials(nodes_, num_chunks);
    if (results != nullptr && is_root(nodes_, num_chunks)) {
      WorkItem item = held.item;
      item.rows = {held.item.rows.begin + rows.begin, held.item.rows.begin + rows.end};
      results->finish(item, nodes_[0].partial);
    }
    return {};
  }

 private:
  /// Whether a node cannot be opened where it lies, nor where it belongs.
  static bool needs_room(const Node& node) {
    return node.value.partial.o == nullptr && node.message->element() != WireElement::kFp32;
  }

  std::vector<NodePartial> nodes_;
  AlignedBuffer<float> room_;
};

HeldPartials::HeldPartials(const Batch& batch, bool in_parts)
    : batch_(batch), in_parts_(in_parts) {}

HeldPartials::~HeldPartials() = default;

std::int64_t HeldPartials::num_chunks(const WorkItem& item) const {
  return batch_.num_chunks(batch_.requests[item.request]);
}

void HeldPartials::add(const WorkItem& item, Range rows, std::span<const NodePartial> nodes) {
  Held& held = held_.try_emplace(ItemKey(item), Held{item, {}}).first->second;
  for (const NodePartial& node : nodes) {
    held.nodes.push_back({.value = {node.node, rows_of(node.partial, rows)}});
  }
}

void HeldPartials::add(const Message& message, std::size_t item) {
  const WireItem& wire = message.items()[item];
  Held& held = held_.try_emplace(ItemKey(wire.item), Held{wire.item, {}}).first->second;
  for (std::size_t n = 0; n < wire.nodes.size(); ++n) {
    held.nodes.push_back(
        {.value = {wire.nodes[n], {}}, .message = &message, .item = item, .index = n});
  }
}

std::vector<NodePartial> HeldPartials::take(const WorkItem& item) {
  std::vector<NodePartial> nodes;
  const auto held = held_.find(ItemKey(item));
  if (held == held_.end()) return nodes;
  for (const Node& node : held->second.nodes) nodes.push_back(node.value);
  held->second.nodes.clear();
  return nodes;
}

/// Gives the nodes that lie in messages memory to be opened in.
void HeldPartials::make_room() {
  const std::int64_t d_v = batch_.shape.d_v;
  for (auto& [key, held] : held_) {
    const std::int64_t rows = held.item.rows.size();
    for (Node& node : held.nodes) {
      if (node.message == nullptr) continue;
      const auto floats = static_cast<std::size_t>(partial_floats(rows, d_v));
      node.value.partial = partial_at(rooms_.emplace_back(floats).data(), rows, d_v);
    }
  }
}

/// Leaves the nodes that folding their values leaves.
void HeldPartials::fold_nodes(Held& held) const {
  std::vector<NodePartial> nodes;
  for (const Node& node : held.nodes) {
    nodes.push_back(node.value);
    nodes.back().partial.rows = 0;  // nothing is merged
  }
  if (in_parts_) join_parts(nodes);
  fold_partials(nodes, num_chunks(held.item));
  held.nodes.clear();
  for (NodePartial& node : nodes) {
    node.partial.rows = held.item.rows.size();
    held.nodes.push_back({.value = node});
  }
}

/// Other ranks send whole nodes, each once.
void HeldPartials::check_parts(const Held& held) const {
  for (std::size_t n = 1; n < held.nodes.size(); ++n) {
    const Node& left = held.nodes[n - 1];
    const Node& right = held.nodes[n];
    const bool from_others = left.message != nullptr || right.message != nullptr;
    if (from_others && left.value.node == right.value.node) {
      throw MpiError("combine", "a partial of request " + std::to_string(held.item.request) +
                                    " is there twice");
    }
  }
}

void HeldPartials::fold_all(int threads, ResultSink* results) {
  struct Task {
    const Held* held = nullptr;
    std::int64_t block = 0;
  };
  std::vector<Task> tasks;
  for (auto& [key, held] : held_) {
    if (held.nodes.empty()) continue;
    const std::int64_t chunks = num_chunks(held.item);
    // Parts of one node stay in their order.
    std::stable_sort(held.nodes.begin(), held.nodes.end(), [=](const Node& a, const Node& b) {
      return chunks_of(a.value.node, chunks).begin < chunks_of(b.value.node, chunks).begin;
    });
    if (in_parts_) check_parts(held);
    const std::int64_t blocks = count_blocks(held.item.rows.size());
    for (std::int64_t block = 0; block < blocks; ++block) tasks.push_back({&held, block});
  }
  const auto count = static_cast<std::int64_t>(tasks.size());
  // Memory that cannot be had must not be noticed on the threads, which have nobody to tell.
  folders_.resize(std::max<std::size_t>(folders_.size(), threads));
  const Folder::Room room = Folder::room_for(*this);
  for (Folder& folder : folders_) folder.reserve(room);
  std::optional<Fault> found;
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads) if (threads > 1)
  for (std::int64_t t = 0; t < count; ++t) {
    const auto& [held, block] = tasks[t];
    const auto fault = folders_[omp_get_thread_num()].fold(*this, *held, block, results);
    if (!fault) continue;
#pragma omp critical
    found = fault;
  }
  if (found) found->message->refuse(found->place);
  for (auto& [key, held] : held_) fold_nodes(held);
}

void HeldPartials::fold(int threads) {
  make_room();
  fold_all(threads, nullptr);
}

void HeldPartials::finish(int threads, ResultSink& results) {
  fold_all(threads, &results);
  for (auto& [key, held] : held_) {
    if (held.nodes.empty()) continue;
    if (held.nodes.size() > 1 || !is_root({held.nodes.front().value}, num_chunks(held.item))) {
      throw MpiError("combine", "the partials of request " + std::to_string(key.request) +
                                    " do not cover each of its chunks once");
    }
    held.nodes.clear();
  }
  rooms_.clear();
}

}  // namespace mla::dist
