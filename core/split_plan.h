#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/batch.h"
#include "core/cost_model.h"
#include "core/partition.h"
#include "core/range.h"

namespace mla {

/// Most query rows that a kernel handles at a time; more are cut into tiles.
inline constexpr std::int64_t kMaxRowsPerItem = 128;

/// The unit that has partials of its own: some query rows of a request that share a KV head. The
/// rows of a (request, heads, KV head) are numbered query-major: row = j * heads.size() + (h -
/// heads.begin), and cut into tiles of kMaxRowsPerItem. The cut does not depend on the rank, so an
/// item is known by the same fields everywhere.
struct WorkItem {
  std::int64_t piece = 0;  ///< index into the rank's pieces
  std::int64_t request = 0;
  std::int64_t kv_head = 0;
  Range heads;   ///< query heads, all of the group that reads `kv_head`
  Range rows;    ///< of query_len * heads.size()
  Range chunks;  ///< that this rank computes

  friend bool operator==(const WorkItem&, const WorkItem&) = default;
};

/// The items of a rank's pieces, in the order of the pieces.
std::vector<WorkItem> work_items(const Batch& batch, std::span<const Piece> pieces);

/// A run of chunks for some rows of one item, computed by one thread and folded as it goes, with
/// the segments that follow it in the same share. Threads that have done their own segments take
/// those of others, which are not equally fast.
struct Segment {
  std::int64_t item = 0;  ///< index into SplitPlan::items
  Range chunks;
  Range rows;  ///< of the item's rows

  friend bool operator==(const Segment&, const Segment&) = default;
};

/// Whether `next` goes on where `segment` ends, in the same rows.
inline bool follows(const Segment& segment, const Segment& next) {
  return next.item == segment.item && next.rows == segment.rows &&
         next.chunks.begin == segment.chunks.end;
}

/// How a rank's share is cut over its threads: the chunks of all items are laid end to end and cut
/// into runs of equal cost, a thread's share, and each share into two quarters, two eighths and so
/// on down to a chunk: what slower threads leave, others take. Where there are too few
/// chunks for that, every item is first cut into slices of 64, 32 or 16 rows, whichever the cost
/// model finds to pay for reading the cache once per slice. Segments cover every chunk of every row
/// once, in order.
///
///   2 threads, one item of 128 rows:   chunk          0      1      2
///                                      rows 0-64     [----- thread 0 ----]
///                                      rows 64-128   [----- thread 1 ----]
struct SplitPlan {
  std::vector<WorkItem> items;
  std::vector<Segment> segments;             ///< by thread, and by item, slice of rows, chunk
  std::vector<std::int64_t> thread_offsets;  ///< [threads + 1] into `segments`
  std::vector<std::int64_t> item_offsets;    ///< [items + 1] into `segments`
  /// [segments + 1] into a float array that holds one partial for each maximal tree node of each
  /// segment. A segment that covers its whole request has no place there: its thread finishes it at
  /// once, so memory does not grow with the number of requests.
  std::vector<std::int64_t> float_offsets;

  int threads() const { return static_cast<int>(thread_offsets.size()) - 1; }
};

/// Plans `pieces` for `threads` threads. A pure function of sizes.
SplitPlan make_split_plan(const Batch& batch, std::span<const Piece> pieces, int threads,
                          const CostModel& cost = {});

}  // namespace mla
