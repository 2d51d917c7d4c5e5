#pragma once

#include <atomic>
#include <cstdint>
#include <vector>

#include "core/batch.h"
#include "core/partial_fold.h"
#include "core/result_sink.h"
#include "core/split_plan.h"
#include "kernels/node_decoder.h"

namespace mla::kernels {

/// Floats that a ThreadFold works in.
std::int64_t thread_fold_floats(const Batch& batch, const SplitPlan& plan);

/// Holds the partials that the segments of a plan leave behind, where a request is cut over threads
/// or ranks, and folds them along the canonical tree. Rows are independent of one another, so
/// threads share the folding, a few rows at a time; no bit depends on the cut.
class ThreadFold {
 public:
  /// At most `plan.threads()` threads fold. The arguments must outlive it.
  /// @param memory thread_fold_floats, aligned to 64 bytes
  ThreadFold(const Batch& batch, const SplitPlan& plan, float* memory);

  /// All segments are to be computed again. No other call may run at the same time.
  void reset();

  /// Room for the nodes of segment `segment`, as `HostBackend::decode` leaves them; null if it
  /// covers its whole request and has none.
  float* nodes_of(std::int64_t segment);

  /// The segments `run`, which follow one another in the same rows of one item, are computed: the
  /// maximal nodes of all their chunks lie at `first_node` and, one after the other, at
  /// `other_nodes`. Copies them to the room of these segments unless they are there. May be called
  /// for distinct segments at the same time. Allocates nothing.
  void keep(Range run, float* first_node, float* other_nodes);
  /// Likewise, but they are the whole request, and their rows have been finished.
  void drop(Range run);

  /// Folds what is computed and nobody has begun to fold; true if that leaves nothing to wait for.
  /// Rows whose request lies wholly on this rank are finished into `results`. No two calls at a
  /// time have the same `thread`, a number below `plan.threads()`. Allocates nothing.
  bool fold_ready(int thread, ResultSink& results);

  /// The items that other ranks have chunks of; valid when all is folded.
  const std::vector<OpenItem>& open_items() const { return open_; }

 private:
  /// A node of a segment, and what lies there once the segments are computed: a node of a run that
  /// begins with the same chunk, or nothing.
  struct Place {
    std::int64_t first_chunk = 0;
    NodePartial held;
    bool holds = false;
  };

  /// Some rows of an item, all of whose segments have these rows.
  struct Slice {
    std::int64_t item = 0;
    Range rows;              // of the item's rows
    Range places;            // into places_, left to right
    std::int64_t segments;   // how many
    std::int64_t open = -1;  // into open_; -1: the folded rows are finished
  };

  struct Progress {
    std::atomic<std::int64_t> segments_left;
    std::atomic<std::int64_t> next_row;  // to fold; may run past the end
  };

  /// Where a segment's nodes are; no slice if it has none.
  struct SegmentPlaces {
    std::int64_t slice = -1;
    std::int64_t first = 0;  // of places_
  };

  void add_slice(std::int64_t item, Range segments, std::int64_t open);
  OpenItem open_item(std::int64_t item, std::int64_t first_place, float* gathered) const;
  void clear_places(Range run);
  void count_computed(Range run);
  void fold_rows(const Slice& slice, Range rows, int thread, ResultSink& results);

  const Batch& batch_;
  const SplitPlan& plan_;
  float* floats_;              // of the segments, then of open items cut into slices
  std::vector<Place> places_;  // of all segments
  std::vector<SegmentPlaces> segment_places_;  // [segments + 1]
  std::vector<Slice> slices_;
  std::vector<Progress> progress_;  // [slices]
  std::vector<OpenItem> open_;
  std::vector<std::vector<NodePartial>> rooms_;  // [threads], to fold in
};

}  // namespace mla::kernels
