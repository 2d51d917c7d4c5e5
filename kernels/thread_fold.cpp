#include "kernels/thread_fold.h"

#include <algorithm>

namespace mla::kernels {
namespace {

constexpr std::int64_t kRowsPerTask = 8;  // 16 KiB of each partial

std::int64_t num_chunks_of(const Batch& batch, const WorkItem& item) {
  return batch.num_chunks(batch.requests[item.request]);
}

bool is_open(const Batch& batch, const WorkItem& item) {
  return !item.chunks.empty() && item.chunks != Range{0, num_chunks_of(batch, item)};
}

/// Floats of the nodes of an open item that is cut into slices of rows: its partials, as other
/// ranks know them, have all rows and are put together from those of the slices.
std::int64_t gathered_floats(const Batch& batch, const SplitPlan& plan, std::int64_t item) {
  const WorkItem& work = plan.items[item];
  if (!is_open(batch, work)) return 0;
  if (plan.segments[plan.item_offsets[item]].rows == work.rows) return 0;
  return count_maximal_nodes(work.chunks, num_chunks_of(batch, work)) *
         partial_floats(work.rows.size(), batch.shape.d_v);
}

void copy_partial(const PartialView& from, const PartialView& to) {
  std::copy_n(from.m_log2, from.rows, to.m_log2);
  std::copy_n(from.l, from.rows, to.l);
  std::copy_n(from.o, from.rows * from.d_v, to.o);
}

}  // namespace

std::int64_t thread_fold_floats(const Batch& batch, const SplitPlan& plan) {
  std::int64_t floats = plan.float_offsets.back();
  for (std::size_t i = 0; i < plan.items.size(); ++i) {
    floats += gathered_floats(batch, plan, static_cast<std::int64_t>(i));
  }
  return floats;
}

ThreadFold::ThreadFold(const Batch& batch, const SplitPlan& plan, float* memory)
    : batch_(batch), plan_(plan), floats_(memory), place_offsets_{0}, rooms_(plan.threads()) {
  float* gathered = floats_ + plan.float_offsets.back();
  for (std::size_t i = 0; i < plan.items.size(); ++i) {
    const auto item = static_cast<std::int64_t>(i);
    const auto first_place = static_cast<std::int64_t>(places_.size());
    const bool opens = is_open(batch, plan.items[i]);
    const std::int64_t open = opens ? static_cast<std::int64_t>(open_.size()) : -1;
    Range slice{plan.item_offsets[i], plan.item_offsets[i]};
    for (; slice.begin < plan.item_offsets[i + 1]; slice.begin = slice.end) {
      const Range rows = plan.segments[slice.begin].rows;
      while (slice.end < plan.item_offsets[i + 1] && plan.segments[slice.end].rows == rows) {
        ++slice.end;
      }
      add_tasks_of_slice(item, slice, open);
    }
    if (opens) open_.push_back(open_item(item, first_place, gathered));
    gathered += gathered_floats(batch, plan, item);
  }
  std::int64_t most_nodes = 0;
  for (const Task& task : tasks_) most_nodes = std::max(most_nodes, task.places.size());
  for (std::vector<NodePartial>& room : rooms_) room.reserve(most_nodes);
}

void ThreadFold::add_tasks_of_slice(std::int64_t item, Range segments, std::int64_t open) {
  const std::int64_t num_chunks = num_chunks_of(batch_, plan_.items[item]);
  const Range rows = plan_.segments[segments.begin].rows;
  const auto first_place = static_cast<std::int64_t>(places_.size());
  for (std::int64_t s = segments.begin; s < segments.end; ++s) {
    float* at = nodes_of(s);
    if (at != nullptr) {
      for (const TreeNode node : maximal_nodes(plan_.segments[s].chunks, num_chunks)) {
        places_.push_back({.first_chunk = chunks_of(node, num_chunks).begin,
                           .held = {node, partial_at(at, rows.size(), batch_.shape.d_v)}});
        at += partial_floats(rows.size(), batch_.shape.d_v);
      }
    }
    place_offsets_.push_back(static_cast<std::int64_t>(places_.size()));
  }
  const Range places{first_place, static_cast<std::int64_t>(places_.size())};
  if (places.empty()) return;  // the thread that computes the only segment finishes the slice
  for (std::int64_t row = rows.begin; row < rows.end; row += kRowsPerTask) {
    tasks_.push_back({.item = item,
                      .rows = {row, std::min(rows.end, row + kRowsPerTask)},
                      .places = places,
                      .first_row = rows.begin,
                      .open = open});
  }
}

/// A fold merges to the left, so it leaves every node where the chunks of that node begin.
OpenItem ThreadFold::open_item(std::int64_t item, std::int64_t first_place, float* gathered) const {
  const WorkItem& work = plan_.items[item];
  const std::int64_t num_chunks = num_chunks_of(batch_, work);
  const bool gathers = gathered_floats(batch_, plan_, item) > 0;
  OpenItem open{item, {}};
  auto at = places_.begin() + first_place;
  for (const TreeNode node : maximal_nodes(work.chunks, num_chunks)) {
    if (gathers) {
      open.nodes.push_back({node, partial_at(gathered, work.rows.size(), batch_.shape.d_v)});
      gathered += partial_floats(work.rows.size(), batch_.shape.d_v);
      continue;
    }
    while (at->first_chunk != chunks_of(node, num_chunks).begin) ++at;
    open.nodes.push_back({node, at->held.partial});
  }
  return open;
}

float* ThreadFold::nodes_of(std::int64_t segment) {
  const std::int64_t begin = plan_.float_offsets[segment];
  return begin == plan_.float_offsets[segment + 1] ? nullptr : floats_ + begin;
}

void ThreadFold::keep(Range run, float* nodes) {
  drop(run);
  const Segment& first = plan_.segments[run.begin];
  const std::int64_t num_chunks = num_chunks_of(batch_, plan_.items[first.item]);
  TreeFold fold(num_chunks);
  for (std::int64_t c = first.chunks.begin; c < plan_.segments[run.end - 1].chunks.end; ++c) {
    fold.push({0, c});
    while (fold.combine()) {
    }
  }
  auto place = places_.begin() + place_offsets_[run.begin];
  for (int i = 0; i < fold.size(); ++i) {
    while (place->first_chunk != chunks_of(fold[i], num_chunks).begin) ++place;
    const PartialView from = partial_at(nodes, first.rows.size(), batch_.shape.d_v);
    nodes += partial_floats(first.rows.size(), batch_.shape.d_v);
    place->held.node = fold[i];
    place->holds = true;
    if (from.o != place->held.partial.o) copy_partial(from, place->held.partial);
  }
}

void ThreadFold::drop(Range run) {
  for (std::int64_t p = place_offsets_[run.begin]; p < place_offsets_[run.end]; ++p) {
    places_[p].holds = false;
  }
}

void ThreadFold::run_task(std::int64_t task, int thread, ResultSink& results) {
  const Task& t = tasks_[task];
  const Range rows_of_slice{t.rows.begin - t.first_row, t.rows.end - t.first_row};
  std::vector<NodePartial>& nodes = rooms_[thread];
  nodes.clear();
  for (std::int64_t p = t.places.begin; p < t.places.end; ++p) {
    const auto& [node, partial] = places_[p].held;
    if (places_[p].holds) nodes.push_back({node, rows_of(partial, rows_of_slice)});
  }
  if (nodes.empty()) return;
  WorkItem item = plan_.items[t.item];
  fold_partials(nodes, num_chunks_of(batch_, item));
  if (t.open < 0) {
    item.rows = t.rows;
    results.finish(item, nodes[0].partial);
    return;
  }
  const Range rows_of_item{t.rows.begin - item.rows.begin, t.rows.end - item.rows.begin};
  for (std::size_t i = 0; i < nodes.size(); ++i) {
    const PartialView to = rows_of(open_[t.open].nodes[i].partial, rows_of_item);
    if (to.o != nodes[i].partial.o) copy_partial(nodes[i].partial, to);
  }
}

}  // namespace mla::kernels
