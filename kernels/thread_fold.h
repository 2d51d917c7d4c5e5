#pragma once

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
/// or ranks, and folds them along the canonical tree. Rows are independent of one another, so the
/// folding is cut into tasks of a few rows each, which threads share; no bit depends on the cut.
class ThreadFold {
 public:
  /// Tasks may run on `plan.threads()` threads. The arguments must outlive it.
  /// @param memory thread_fold_floats, aligned to 64 bytes
  ThreadFold(const Batch& batch, const SplitPlan& plan, float* memory);

  /// Room for the nodes of segment `segment`, as `HostBackend::decode` leaves them; null if it
  /// covers its whole request and has none.
  float* nodes_of(std::int64_t segment);

  /// The segments `run`, which follow one another in one item and have the same rows, are computed:
  /// `nodes` are the maximal nodes of all their chunks. Copies them to the room of these segments
  /// unless they lie there. Runs of distinct segments may be kept by different threads at once.
  void keep(Range run, float* nodes);
  /// Likewise, but they cover their whole request, and its rows have been finished.
  void drop(Range run);

  std::int64_t num_tasks() const { return static_cast<std::int64_t>(tasks_.size()); }

  /// Folds the rows of a task, once the segments are computed. Rows whose request lies wholly on
  /// this rank are finished into `results`. No two tasks at a time have the same `thread`, a number
  /// below `plan.threads()`. Allocates nothing.
  void run_task(std::int64_t task, int thread, ResultSink& results);

  /// The items that other ranks have chunks of; valid when all tasks have run.
  const std::vector<OpenItem>& open_items() const { return open_; }

 private:
  /// A node of a segment, and what lies there once the segments are computed: a node of a run that
  /// begins with the same chunk, or nothing.
  struct Place {
    std::int64_t first_chunk = 0;
    NodePartial held;
    bool holds = false;
  };

  struct Task {
    std::int64_t item = 0;
    Range rows;              // of the item's rows
    Range places;            // into places_, left to right: partials of a slice of the item's rows
    std::int64_t first_row;  // of that slice
    std::int64_t open = -1;  // into open_; -1: the folded rows are finished
  };

  void add_tasks_of_slice(std::int64_t item, Range segments, std::int64_t open);
  OpenItem open_item(std::int64_t item, std::int64_t first_place, float* gathered) const;

  const Batch& batch_;
  const SplitPlan& plan_;
  float* floats_;                            // of the segments, then of open items cut into slices
  std::vector<Place> places_;                // of all segments
  std::vector<std::int64_t> place_offsets_;  // [segments + 1] into places_
  std::vector<Task> tasks_;
  std::vector<OpenItem> open_;
  std::vector<std::vector<NodePartial>> rooms_;  // [threads], to fold in
};

}  // namespace mla::kernels
