#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "core/aligned_buffer.h"
#include "core/batch.h"
#include "core/partial.h"
#include "dist/model/group_step.h"
#include "dist/model/rank_context.h"
#include "kernels/backend.h"

namespace mla::dist {

/// Attention in the MHA form, for tokens of long prompts: keys and values of each head are expanded
/// from the rows of the cache, a canonical chunk at a time, and serve all queries of the step.
///
///   for each chunk    cache rows --W_UK, W_UV--> [V | K | rope] of each head --engine--> partial
///                     added to the partial of the chunks before
///
/// A row of a chunk's partial depends on the chunk's keys and the query alone, and chunks are added
/// up by position. So a token's bits depend on the tokens of its sequence up to it.
class PrefillAttention {
 public:
  /// `context` must outlive it. Local.
  explicit PrefillAttention(const RankContext& context);

  /// For each token of `step.prefills` and each of this rank's heads, its attention to the rows of
  /// the cache up to it. Local, but collective over the group where the cache is split.
  /// @param kv_b   of the layer
  /// @param cache  of the layer: [pages][kPageTokens][row] of kv_dtype
  /// @param q      [tokens of the step, own heads, qk_nope + qk_rope], rotated, without q_scales
  /// @param values [tokens of the step, own heads * v_head_dim], `stride` floats apart; those of
  ///               other tokens are left as they are
  void run(const GroupStep& step, const MatrixView& kv_b, const std::byte* cache, const float* q,
           float* values, std::int64_t stride);

  /// Of memory on one rank, at most.
  static std::int64_t buffer_bytes(const ModelConfig& config, const ModelLimits& limits,
                                   const ModelSharding& sharding);
  /// Rows of kv_b that are multiplied together.
  static std::int64_t expanded_rows(const ModelConfig& config, const ModelSharding& sharding);

 private:
  using Part = GroupStep::Part;

  static Range rows_of(const Part& part, std::int64_t slice);
  void round_queries(const GroupStep& step, const float* q);
  void read_rows(const Part& part, Range keys, const std::byte* cache);
  void expand(const MatrixView& kv_b, Range heads, std::int64_t keys);
  void attend(const Part& part, Range keys, Range heads);
  kernels::DecodeParams decode_params(const Part& part, Range keys, Range rows,
                                      std::int64_t first_head, std::int64_t head) const;
  void finish(const Part& part, float* values, std::int64_t stride);
  PartialView partial_of(const Part& part, std::int64_t slice, std::int64_t head);

  const RankContext& context_;
  const AttentionConfig& config_;
  Range heads_;             // this rank's
  std::int64_t row_width_;  // elements of a row of the cache
  MlaShape shape_;          // of one head
  DType dtype_;

  std::int64_t partial_floats_;             // of a slice of queries and a head
  std::int64_t workspace_bytes_;            // of a thread, for the engine
  AlignedBuffer<std::byte> read_;           // [keys, row_width] of dtype, where the cache is split
  AlignedBuffer<float> rows_;               // [keys, row_width]
  AlignedBuffer<float> expanded_;           // [keys, heads at once, qk_nope + v_head_dim]
  AlignedBuffer<std::byte> kv_;             // [heads at once, keys, d_qk] of dtype
  AlignedBuffer<std::byte> q_;              // [tokens, own heads, d_qk] of dtype
  AlignedBuffer<float> partials_;           // [slices of queries, own heads]
  AlignedBuffer<std::byte> thread_memory_;  // [threads]: a partial, then workspace
};

}  // namespace mla::dist
