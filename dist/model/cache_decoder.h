#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "core/aligned_buffer.h"
#include "core/batch.h"
#include "core/result_sink.h"
#include "core/split_plan.h"
#include "dist/model/group_step.h"
#include "dist/model/rank_context.h"
#include "kernels/local_decode.h"

namespace mla::dist {

/// The engine at work on absorbed queries and this rank's cache: planned for a step, then run for
/// every layer. Request i is part i of the step's absorbed ones. Local.
class CacheDecoder {
 public:
  /// @param heads of a query
  CacheDecoder(const RankContext& context, std::int64_t heads);

  /// Takes the lengths of a step; `plan` follows.
  void begin(const GroupStep& step);
  /// @param pieces of batch()
  /// @param queries [tokens, heads, d_qk] of kv_dtype, to be there when it runs
  void plan(const GroupStep& step, std::span<const Piece> pieces, const std::byte* queries);

  const Batch& batch() const { return batch_; }
  std::span<const WorkItem> items() const { return plan_.items; }

  /// As LocalDecoder::run.
  /// @param cache of a layer: [pages][kPageTokens][d_qk] of kv_dtype
  const std::vector<kernels::OpenItem>& run(const std::byte* cache, ResultSink& results);

 private:
  const RankContext& context_;
  Batch batch_;
  SplitPlan plan_;
  kernels::RankInputs inputs_;
  AlignedBuffer<std::byte> memory_;
  std::optional<kernels::LocalDecoder> decoder_;
};

}  // namespace mla::dist
