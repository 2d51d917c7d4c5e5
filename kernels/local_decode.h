#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "core/aligned_buffer.h"
#include "core/batch.h"
#include "core/huge_pages.h"
#include "core/result_sink.h"
#include "core/split_plan.h"
#include "kernels/backend.h"
#include "kernels/node_decoder.h"
#include "kernels/segment_queue.h"
#include "kernels/thread_fold.h"

namespace mla::kernels {

/// What a kernel needs to know of `item`, one of `work_items(batch, pieces)` of the pieces that
/// `inputs` belongs to.
DecodeParams decode_params(const Batch& batch, const WorkItem& item, const RankInputs& inputs);

/// Sizes of the memory that a LocalDecoder works in.
struct WorkspaceSize {
  std::int64_t fold_floats = 0;         ///< partials of requests cut over threads or ranks
  std::int64_t floats_per_thread = 0;   ///< partials of a run of segments
  std::int64_t scratch_per_thread = 0;  ///< bytes, for the backend
  int threads = 0;

  /// A thread's partials and scratch, in huge pages of its own, so that they lie near its core.
  std::int64_t bytes_per_thread() const {
    return round_up(floats_per_thread * 4 + scratch_per_thread, kHugePageBytes);
  }
  std::int64_t bytes() const { return fold_floats * 4 + threads * bytes_per_thread(); }
};
WorkspaceSize workspace_size(const Batch& batch, const SplitPlan& plan, const HostBackend& backend);

/// One rank's decode: computes the segments of a plan on the plan's number of threads, which then
/// share the folding of requests that were cut over them. Threads that are done help the others.
/// Segments of its own share that follow one another a thread computes and folds in one run.
/// Keeps the memory of the partials, so a plan can be run again and again.
class LocalDecoder {
 public:
  /// All arguments must outlive the decoder.
  /// @param memory workspace_size(...).bytes() aligned to 64; if empty, it has memory of its own
  LocalDecoder(const Batch& batch, const SplitPlan& plan, const HostBackend& backend,
               std::span<std::byte> memory = {});

  /// Computes everything. Items whose request lies wholly on this rank are finished into `results`;
  /// the others are returned, and their partials stay valid until the next run. `chunks_done` is
  /// raised after each chunk of an item. Allocates nothing. Local.
  const std::vector<OpenItem>& run(const RankInputs& inputs, ResultSink& results,
                                   std::atomic<std::int64_t>* chunks_done = nullptr);

 private:
  void run_from(std::int64_t segment, const RankInputs& inputs, ResultSink& results,
                std::atomic<std::int64_t>* chunks_done, int thread);
  std::byte* memory_of(int thread);

  const Batch& batch_;
  const SplitPlan& plan_;
  const HostBackend& backend_;
  WorkspaceSize size_;
  AlignedBuffer<std::byte> owned_;
  std::byte* memory_;  // [threads, size_.bytes_per_thread()], then the partials of the fold
  SegmentQueue queue_;
  ThreadFold fold_;
};

}  // namespace mla::kernels
