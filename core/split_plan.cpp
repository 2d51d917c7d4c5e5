#include "core/split_plan.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/chunk_tree.h"
#include "core/partial.h"

namespace mla {
namespace {

/// Which thread a chunk goes to, and which part of the thread's share.
struct Place {
  int thread = -1;
  int part = 0;

  friend bool operator==(const Place&, const Place&) = default;
};

/// Cuts the flat run of chunks at equal costs: chunk c goes to the thread in whose share its middle
/// lies. No snapping: partials between threads travel through the cache, which is cheap. A share is
/// cut into two quarters, two eighths and so on: a thread at half of the others' speed never has
/// too much in hand, and what it leaves can be shared out evenly.
class ThreadDealer {
 public:
  /// `least_part` is the least cost that a part should have.
  ThreadDealer(double total, int threads, double least_part)
      : share_(total / threads), threads_(threads), left_{share_} {
    if (threads == 1 || share_ <= least_part) return;
    left_.clear();
    double left = share_;
    for (; left >= 4 * least_part; left /= 2) left_.insert(left_.end(), {left, left * 3 / 4});
    for (; left > least_part / 2; left -= least_part) left_.push_back(left);
  }

  Place place_of_next(double cost) {
    const double middle = position_ + cost / 2;
    position_ += cost;
    Place place{std::min(threads_ - 1, static_cast<int>(middle / share_)), 0};
    const double left = (place.thread + 1) * share_ - middle;
    const auto parts = static_cast<int>(left_.size());
    while (place.part + 1 < parts && left <= left_[place.part + 1]) ++place.part;
    return place;
  }

 private:
  double share_;
  int threads_;
  std::vector<double> left_;  // of a share where each of its parts begins
  double position_ = 0;
};

/// Deals the chunks of all items, cut into slices of at most `slice_rows` rows, out to threads.
class PlanMaker {
 public:
  PlanMaker(const Batch& batch, const std::vector<WorkItem>& items, int threads,
            const CostModel& cost, std::int64_t slice_rows)
      : batch_(&batch), cost_(&cost), slice_rows_(slice_rows), loads_(threads) {
    plan_.items = items;
    for_each_slice([&](std::int64_t item, Range rows) {
      const Range chunks = items[item].chunks;
      for (std::int64_t c = chunks.begin; c < chunks.end; ++c) {
        const double chunk_cost = cost_of(item, rows, c);
        total_ += chunk_cost;
        largest_ = std::max(largest_, chunk_cost);
      }
    });
    deal();
    make_room();
    count_shared_floats();
  }

  /// Predicted cost if all threads were equally busy, and of the busiest.
  double ideal() const { return total_ / threads(); }
  double busiest() const {
    const double folding = static_cast<double>(shared_floats_) * cost_->flop_per_shared_float;
    return *std::max_element(loads_.begin(), loads_.end()) + folding / threads();
  }

  SplitPlan take() { return std::move(plan_); }

 private:
  double threads() const { return static_cast<double>(loads_.size()); }

  double cost_of(std::int64_t item, Range rows, std::int64_t chunk) const {
    const Request& request = batch_->requests[plan_.items[item].request];
    return cost_->tile_chunk(*batch_, request, chunk, rows.size());
  }

  template <class Visit>
  void for_each_slice(Visit visit) const {
    for (std::size_t i = 0; i < plan_.items.size(); ++i) {
      const Range rows = plan_.items[i].rows;
      for (std::int64_t row = rows.begin; row < rows.end; row += slice_rows_) {
        visit(static_cast<std::int64_t>(i), Range{row, std::min(rows.end, row + slice_rows_)});
      }
    }
  }

  void deal() {
    ThreadDealer dealer(total_, static_cast<int>(loads_.size()), largest_);
    std::vector<std::int64_t> segments_of(loads_.size(), 0);
    plan_.item_offsets.assign(plan_.items.size() + 1, 0);
    for_each_slice([&](std::int64_t item, Range rows) {
      const Range chunks = plan_.items[item].chunks;
      Place last;
      for (std::int64_t c = chunks.begin; c < chunks.end; ++c) {
        const double cost = cost_of(item, rows, c);
        const Place place = dealer.place_of_next(cost);
        loads_[place.thread] += cost;
        if (place == last) {
          ++plan_.segments.back().chunks.end;
        } else {
          plan_.segments.push_back({item, {c, c + 1}, rows});
          ++segments_of[place.thread];
          ++plan_.item_offsets[item + 1];
          last = place;
        }
      }
    });
    std::partial_sum(plan_.item_offsets.begin(), plan_.item_offsets.end(),
                     plan_.item_offsets.begin());
    plan_.thread_offsets.push_back(0);
    for (const std::int64_t count : segments_of) {
      plan_.thread_offsets.push_back(plan_.thread_offsets.back() + count);
    }
  }

  void make_room() {
    plan_.float_offsets = {0};
    for (const Segment& segment : plan_.segments) {
      plan_.float_offsets.push_back(plan_.float_offsets.back() + floats_of(segment));
    }
  }

  /// Floats that threads leave to be folded when none helps another.
  void count_shared_floats() {
    for (int thread = 0; thread < plan_.threads(); ++thread) {
      Segment run;
      for (std::int64_t s = plan_.thread_offsets[thread]; s < plan_.thread_offsets[thread + 1];
           ++s) {
        const Segment& segment = plan_.segments[s];
        if (s > plan_.thread_offsets[thread] && follows(run, segment)) {
          run.chunks.end = segment.chunks.end;
          continue;
        }
        shared_floats_ += floats_of(run);
        run = segment;
      }
      shared_floats_ += floats_of(run);
    }
  }

  /// Floats of the segment's partials; none if it covers its whole request.
  std::int64_t floats_of(const Segment& segment) const {
    if (segment.chunks.empty()) return 0;
    const Request& request = batch_->requests[plan_.items[segment.item].request];
    const std::int64_t num_chunks = batch_->num_chunks(request);
    if (segment.chunks == Range{0, num_chunks}) return 0;
    return count_maximal_nodes(segment.chunks, num_chunks) *
           partial_floats(segment.rows.size(), batch_->shape.d_v);
  }

  const Batch* batch_;  // not references: the better of two makers is assigned to the other
  const CostModel* cost_;
  std::int64_t slice_rows_;
  double total_ = 0;
  double largest_ = 0;  // of a chunk
  std::vector<double> loads_;
  std::int64_t shared_floats_ = 0;
  SplitPlan plan_;
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
  constexpr double kBalanced = 1.05;
  // How fast rows of such slices are computed, measured against those of whole items.
  constexpr struct {
    std::int64_t rows;
    double speed;
  } kNarrowSlices[] = {{64, 0.99}, {32, 0.95}, {16, 0.86}};
  const std::vector<WorkItem> items = work_items(batch, pieces);
  PlanMaker best(batch, items, threads, cost, kMaxRowsPerItem);
  if (best.busiest() <= kBalanced * best.ideal()) return best.take();
  double best_time = best.busiest();
  for (const auto& slice : kNarrowSlices) {
    PlanMaker next(batch, items, threads, cost, slice.rows);
    const double time = next.busiest() / slice.speed;
    if (time >= best_time) continue;
    best = std::move(next);
    best_time = time;
  }
  return best.take();
}

}  // namespace mla
