#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "core/aligned_buffer.h"
#include "core/partition.h"
#include "core/result_builder.h"
#include "dist/combine.h"
#include "dist/model/cache_decoder.h"
#include "dist/model/gather.h"
#include "dist/model/group_step.h"
#include "dist/model/projected_partials.h"
#include "dist/model/rank_context.h"

namespace mla::dist {

/// Attention where each rank of a group has a run of the tokens of every sequence:
///
///   queries of own heads -> gather -> all heads over own chunks -> combine at the owner
///                                                    -> outputs to all -> own heads
///
/// Partials meet along the canonical tree, so the bits are those of an undivided cache; with
/// ModelSharding::fast_combine they meet as ProjectedPartials, and what comes out are values.
class SplitCacheAttention {
 public:
  /// `context` must outlive it. Collective over the group.
  explicit SplitCacheAttention(const RankContext& context);

  /// Plans the work of a step. Collective over the group.
  void begin(const GroupStep& step);

  /// Where this rank's queries go, in fp32: [tokens, own heads, d_qk].
  ColumnGather& queries() { return queries_; }

  /// outputs[tokens, own heads, d_v] <- the attention of the queries to a layer's rows. Collective
  /// over the group; not with fast_combine.
  void run(const std::byte* cache, float* outputs);
  /// values (this rank's columns) <- W_UV of that. Collective over the group; with fast_combine.
  void run(const std::byte* cache, const MatrixView& kv_b, ColumnGather& values);

  /// Of memory on one rank, at most.
  static std::int64_t buffer_bytes(const ModelConfig& config, const ModelLimits& limits,
                                   const ModelSharding& sharding);

 private:
  const Batch& batch() const { return decoder_.batch(); }
  const MlaShape& shape() const { return batch().shape; }
  Range chunks_of(int rank, std::int64_t request) const;
  void plan_partition();
  void begin_exact();
  void begin_fast();
  void round_queries();
  void spread_outputs(float* outputs);

  const RankContext& context_;
  CacheDecoder decoder_;
  ColumnGather queries_;              // [tokens, all heads * d_qk]
  AlignedBuffer<std::byte> rounded_;  // the same, of kv_dtype

  Partition partition_;
  std::vector<Range> tokens_;  // of each request

  // Of the exact combine.
  AlignedBuffer<float> owned_;              // [tokens owned, all heads, d_v]
  AlignedBuffer<float> all_outputs_;        // [tokens, all heads, d_v], by owner
  std::vector<std::int64_t> owned_tokens_;  // [ranks]
  std::optional<Combine> combine_;
  std::optional<ResultBuilder> results_;

  std::optional<ProjectedPartials> projected_;  // of the fast one
};

}  // namespace mla::dist
