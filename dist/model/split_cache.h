#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "core/aligned_buffer.h"
#include "core/batch.h"
#include "core/partition.h"
#include "core/result_builder.h"
#include "dist/combine.h"
#include "dist/model/gather.h"
#include "dist/model/group_step.h"
#include "dist/model/rank_context.h"
#include "kernels/node_decoder.h"

namespace mla::dist {

/// Attention where each rank of a group has a run of the tokens of every sequence:
///
///   queries of own heads -> gather -> all heads over own chunks -> combine at the owner
///                                                    -> outputs to all -> own heads
///
/// Partials meet along the canonical tree, so the bits are those of an undivided cache.
class SplitCacheAttention {
 public:
  /// `batch` says shape, types and scale. Collective over the group.
  SplitCacheAttention(const RankContext& context, const Batch& batch);

  /// Plans the work of a step. Collective over the group.
  void begin(const GroupStep& step);

  /// Where this rank's queries go, in fp32: [tokens, own heads, d_qk].
  ColumnGather& queries() { return queries_; }

  /// outputs[tokens, own heads, d_v] <- the attention of the queries to a layer's rows. Collective
  /// over the group.
  void run(const std::uint16_t* cache, float* outputs);

  static std::int64_t buffer_bytes(const ModelConfig& config, const ModelLimits& limits, int ranks);

 private:
  void plan_pieces(const GroupStep& step);
  void round_queries();
  void spread_outputs(float* outputs);

  const RankContext& context_;
  Batch batch_;
  ColumnGather queries_;              // [tokens, all heads * d_qk]
  AlignedBuffer<std::byte> rounded_;  // the same, of batch_.dtype
  AlignedBuffer<float> owned_;        // [tokens owned, all heads, d_v]
  AlignedBuffer<float> all_outputs_;  // [tokens, all heads, d_v], by owner

  Partition partition_;
  std::vector<Range> tokens_;               // of each request
  std::vector<std::int64_t> owned_tokens_;  // [ranks]
  kernels::RankInputs inputs_;
  std::unique_ptr<kernels::NodeDecoder> decoder_;
  std::optional<Combine> combine_;
  std::optional<ResultBuilder> results_;
};

}  // namespace mla::dist
