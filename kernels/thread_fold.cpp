#include "kernels/thread_fold.h"

#include <algorithm>

namespace mla::kernels {
namespace {

constexpr std::int64_t kRowsAtATime = 8;  // 16 KiB of each partial

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
    : batch_(batch), plan_(plan), floats_(memory), rooms_(plan.threads()) {
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
      add_slice(item, slice, open);
    }
    if (opens) open_.push_back(open_item(item, first_place, gathered));
    gathered += gathered_floats(batch, plan, item);
  }
  segment_places_.push_back({-1, static_cast<std::int64_t>(places_.size())});
  std::int64_t most_nodes = 0;
  for (const Slice& slice : slices_) most_nodes = std::max(most_nodes, slice.places.size());
  for (std::vector<NodePartial>& room : rooms_) room.reserve(most_nodes);
  progress_ = std::vector<Progress>(slices_.size());
  reset();
}

void ThreadFold::reset() {
  for (std::size_t i = 0; i < slices_.size(); ++i) {
    progress_[i].segments_left = slices_[i].segments;
    progress_[i].next_row = slices_[i].rows.begin;
  }
}

void ThreadFold::add_slice(std::int64_t item, Range segments, std::int64_t open) {
  const std::int64_t num_chunks = num_chunks_of(batch_, plan_.items[item]);
  const Range rows = plan_.segments[segments.begin].rows;
  const auto first_place = static_cast<std::int64_t>(places_.size());
  const bool folds = nodes_of(segments.begin) != nullptr;  // else its thread finishes the slice
  const std::int64_t slice = folds ? static_cast<std::int64_t>(slices_.size()) : -1;
  for (std::int64_t s = segments.begin; s < segments.end; ++s) {
    segment_places_.push_back({slice, static_cast<std::int64_t>(places_.size())});
    if (!folds) continue;
    float* at = nodes_of(s);
    for (const TreeNode node : maximal_nodes(plan_.segments[s].chunks, num_chunks)) {
      places_.push_back({.first_chunk = chunks_of(node, num_chunks).begin,
                         .held = {node, partial_at(at, rows.size(), batch_.shape.d_v)}});
      at += partial_floats(rows.size(), batch_.shape.d_v);
    }
  }
  if (!folds) return;
  slices_.push_back({.item = item,
                     .rows = rows,
                     .places = {first_place, static_cast<std::int64_t>(places_.size())},
                     .segments = segments.size(),
                     .open = open});
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

void ThreadFold::keep(Range run, float* first_node, float* other_nodes) {
  clear_places(run);
  const Segment& first = plan_.segments[run.begin];
  const std::int64_t num_chunks = num_chunks_of(batch_, plan_.items[first.item]);
  TreeFold nodes(num_chunks);
  for (std::int64_t c = first.chunks.begin; c < plan_.segments[run.end - 1].chunks.end; ++c) {
    nodes.push({0, c});
    while (nodes.combine()) {
    }
  }
  auto place = places_.begin() + segment_places_[run.begin].first;
  float* from = first_node;
  for (int i = 0; i < nodes.size(); ++i) {
    while (place->first_chunk != chunks_of(nodes[i], num_chunks).begin) ++place;
    place->held.node = nodes[i];
    place->holds = true;
    const PartialView partial = partial_at(from, first.rows.size(), batch_.shape.d_v);
    if (partial.o != place->held.partial.o) copy_partial(partial, place->held.partial);
    const std::int64_t floats = partial_floats(first.rows.size(), batch_.shape.d_v);
    from = i == 0 ? other_nodes : from + floats;
  }
  count_computed(run);
}

void ThreadFold::drop(Range run) {
  const std::int64_t slice = segment_places_[run.begin].slice;
  if (slice < 0) return;
  clear_places(run);
  progress_[slice].next_row = slices_[slice].rows.end;
  count_computed(run);
}

void ThreadFold::clear_places(Range run) {
  const std::int64_t end = segment_places_[run.end].first;
  for (std::int64_t p = segment_places_[run.begin].first; p < end; ++p) places_[p].holds = false;
}

void ThreadFold::count_computed(Range run) {
  progress_[segment_places_[run.begin].slice].segments_left.fetch_sub(run.size(),
                                                                      std::memory_order_acq_rel);
}

bool ThreadFold::fold_ready(int thread, ResultSink& results) {
  bool all_computed = true;
  for (std::size_t i = 0; i < slices_.size(); ++i) {
    const Slice& slice = slices_[i];
    Progress& progress = progress_[i];
    if (progress.segments_left.load(std::memory_order_acquire) > 0) {
      all_computed = false;
      continue;
    }
    while (progress.next_row.load(std::memory_order_relaxed) < slice.rows.end) {
      const std::int64_t row = progress.next_row.fetch_add(kRowsAtATime, std::memory_order_relaxed);
      if (row >= slice.rows.end) break;
      fold_rows(slice, {row, std::min(slice.rows.end, row + kRowsAtATime)}, thread, results);
    }
  }
  return all_computed;
}

void ThreadFold::fold_rows(const Slice& slice, Range rows, int thread, ResultSink& results) {
  const Range rows_of_slice{rows.begin - slice.rows.begin, rows.end - slice.rows.begin};
  std::vector<NodePartial>& nodes = rooms_[thread];
  nodes.clear();
  for (std::int64_t p = slice.places.begin; p < slice.places.end; ++p) {
    const auto& [node, partial] = places_[p].held;
    if (places_[p].holds) nodes.push_back({node, rows_of(partial, rows_of_slice)});
  }
  WorkItem item = plan_.items[slice.item];
  fold_partials(nodes, num_chunks_of(batch_, item));
  if (slice.open < 0) {
    item.rows = rows;
    results.finish(item, nodes[0].partial);
    return;
  }
  const Range rows_of_item{rows.begin - item.rows.begin, rows.end - item.rows.begin};
  for (std::size_t i = 0; i < nodes.size(); ++i) {
    const PartialView to = rows_of(open_[slice.open].nodes[i].partial, rows_of_item);
    if (to.o != nodes[i].partial.o) copy_partial(nodes[i].partial, to);
  }
}

}  // namespace mla::kernels
