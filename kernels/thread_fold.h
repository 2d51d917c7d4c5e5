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

  /// Where segment `segment` puts its nodes, as `HostBackend::decode` does; null if it covers its
  /// whole request and has none.
  float* nodes_of(std::int64_t segment);

  std::int64_t num_tasks() const { return static_cast<std::int64_t>(tasks_.size()); }

  /// Folds the rows of a task, once the segments are computed. Rows whose request lies wholly on
  /// this rank are finished into `results`. No two tasks at a time have the same `thread`, a number
  /// below `plan.threads()`. Allocates nothing.
  void run_task(std::int64_t task, int thread, ResultSink& results);

  /// The items that other ranks have chunks of; valid when all tasks have run.
  const std::vector<OpenItem>& open_items() const { return open_; }

 private:
  struct Task {
    std::int64_t item = 0;
    Range rows;              // of the item's rows
    Range nodes;             // into nodes_, left to right: partials of a slice of the item's rows
    std::int64_t first_row;  // of that slice
    std::int64_t open = -1;  // into open_; -1: the folded rows are finished
  };

  void add_tasks_of_slice(std::int64_t item, Range segments, std::int64_t open);
  OpenItem open_item(std::int64_t item, std::int64_t first_node, float* gathered) const;

  const Batch& batch_;
  const SplitPlan& plan_;
  float* floats_;                   // of the segments, then of open items cut into slices
  std::vector<NodePartial> nodes_;  // of all segments
  std::vector<Task> tasks_;
  std::vector<OpenItem> open_;
  std::vector<std::vector<NodePartial>> rooms_;  // [threads], to fold in
};

}  // namespace mla::kernels
