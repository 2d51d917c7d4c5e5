#include "core/split_plan.h"

#include <algorithm>

#include "core/chunk_tree.h"
#include "core/partial.h"

namespace mla {
namespace {

/// Cuts the flat run of chunks at equal costs: chunk c goes to the thread in whose share its middle
/// lies. No snapping: partials between threads travel through the cache, which is cheap.
class ThreadDealer {
 public:
  ThreadDealer(double total, int threads) : share_(total / threads), threads_(threads) {}

  int thread_of_next(double cost) {
    const double middle = position_ + cost / 2;
    position_ += cost;
    return std::min(threads_ - 1, static_cast<int>(middle / share_));
  }

 private:
  double share_;
  int threads_;
  double position_ = 0;
};

}  // namespace

std::vector<WorkItem> work_items(const Batch& batch, std::span<const Piece> pieces) {
  std::vector<WorkItem> items;
  const std::int64_t group = batch.shape.heads_per_kv();
  for (std::size_t p = 0; p < pieces.size(); ++p) {
    const Piece& piece = pieces[p];
    const std::int64_t query_len = batch.requests[piece.request].query_len;
    for (std::int64_t g = piece.heads.begin / group; g * group < piece.heads.end; ++g) {
      const Range heads{std::max(piece.heads.begin, g * group),
                        std::min(piece.heads.end, (g + 1) * group)};
      const std::int64_t rows = query_len * heads.size();
      for (std::int64_t row = 0; row < rows; row += kMaxRowsPerItem) {
        items.push_back({static_cast<std::int64_t>(p),
                         piece.request,
                         g,
                         heads,
                         {row, std::min(rows, row + kMaxRowsPerItem)},
                         piece.chunks});
      }
    }
  }
  return items;
}

SplitPlan make_split_plan(const Batch& batch, std::span<const Piece> pieces, int threads,
                          const CostModel& cost) {
  SplitPlan plan{.items = work_items(batch, pieces),
                 .segments = {},
                 .thread_offsets = {},
                 .item_offsets = {},
                 .float_offsets = {0}};
  const auto chunk_cost = [&](const WorkItem& item, std::int64_t chunk) {
    return cost.tile_chunk(batch, batch.requests[item.request], chunk, item.rows.size());
  };
  double total = 0;
  for (const WorkItem& item : plan.items) {
    for (std::int64_t c = item.chunks.begin; c < item.chunks.end; ++c) {
      total += chunk_cost(item, c);
    }
  }

  ThreadDealer dealer(total, threads);
  std::vector<std::int64_t> segments_of(threads, 0);
  for (std::size_t i = 0; i < plan.items.size(); ++i) {
    const WorkItem& item = plan.items[i];
    plan.item_offsets.push_back(static_cast<std::int64_t>(plan.segments.size()));
    int last_thread = -1;
    for (std::int64_t c = item.chunks.begin; c < item.chunks.end; ++c) {
      const int thread = dealer.thread_of_next(chunk_cost(item, c));
      if (thread == last_thread) {
        ++plan.segments.back().chunks.end;
      } else {
        plan.segments.push_back({static_cast<std::int64_t>(i), {c, c + 1}});
        ++segments_of[thread];
        last_thread = thread;
      }
    }
  }
  plan.item_offsets.push_back(static_cast<std::int64_t>(plan.segments.size()));

  plan.thread_offsets.push_back(0);
  for (const std::int64_t count : segments_of) {
    plan.thread_offsets.push_back(plan.thread_offsets.back() + count);
  }
  for (const Segment& segment : plan.segments) {
    const WorkItem& item = plan.items[segment.item];
    const std::int64_t num_chunks = batch.num_chunks(batch.requests[item.request]);
    const bool whole = segment.chunks == Range{0, num_chunks};
    const std::int64_t nodes = whole ? 0 : count_maximal_nodes(segment.chunks, num_chunks);
    plan.float_offsets.push_back(plan.float_offsets.back() +
                                 nodes * partial_floats(item.rows.size(), batch.shape.d_v));
  }
  return plan;
}

}  // namespace mla
