#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "core/aligned_buffer.h"
#include "core/strided_results.h"
#include "dist/model/cache_decoder.h"
#include "dist/model/gather.h"
#include "dist/model/group_step.h"
#include "dist/model/prefill.h"
#include "dist/model/rank_context.h"
#include "dist/model/split_cache.h"

namespace mla::dist {

/// The attention of all layers on one rank, for its heads, and the cache of its group.
///
/// Every token's row is written to the cache. Then its queries attend to the rows [0, position],
/// absorbed, by the engine, chunk by chunk along the canonical tree; or, in the whole blocks of a
/// long prompt, in the MHA form (`PrefillAttention`). So what comes out depends on the sequence's
/// tokens up to it, and on nothing else: not on how a prompt was cut into steps, nor on what else
/// is in a step.
class Attention {
 public:
  /// Copies the rank's W_UK, transposed. `context` must outlive it. Collective over the group.
  explicit Attention(const RankContext& context);

  /// Plans the engine's work for `step`, which must stay until the last `run`. Local.
  void begin(const GroupStep& step);

  /// This rank's columns of the attention of `layer` into `out`. Collective over the group.
  /// @param x [tokens, hidden], normed
  void run(std::int64_t layer, const float* x, ColumnGather& out);

  /// Of W_UK of a rank with so many heads.
  static std::int64_t copied_bytes(const ModelConfig& config, const ModelWeights& weights,
                                   std::int64_t heads);
  /// Of one rank's cache.
  static std::int64_t cache_bytes(const ModelConfig& config, const ModelLimits& limits);
  /// Of all else on one rank, at most.
  static std::int64_t buffer_bytes(const ModelConfig& config, const ModelLimits& limits,
                                   const ModelSharding& sharding);

 private:
  void copy_keys();
  void plan_decoder();
  void project(const AttentionWeights& weights, const float* x);
  kernels::LinearParams query_layer(const MatrixView& matrix, const float* x,
                                    std::int64_t x_stride);
  void take_latents(std::int64_t layer, const float* latents);
  void rotate(std::int64_t token, float* x) const;
  void rotate_queries();
  void absorb(std::int64_t layer);
  void write_queries();
  void attend(std::int64_t layer);
  bool has_row(std::int64_t token) const;
  void project_values(const AttentionWeights& weights);
  void project_out(const AttentionWeights& weights, const float* values, ColumnGather& out);
  std::byte* cache_of(std::int64_t layer);
  std::byte* cache_row(std::int64_t layer, std::int64_t token);

  const RankContext& context_;
  const AttentionConfig& config_;
  Range heads_;
  std::int64_t row_width_;  // of the cache
  DType kv_dtype_;

  AlignedBuffer<std::byte> keys_;      // W_UK, transposed, of this rank's heads
  std::vector<MatrixView> key_views_;  // [layers, heads]: [kv_lora_rank, qk_nope] each
  AlignedBuffer<std::byte> cache_;     // [layers][pages][kPageTokens][row_width] of kv_dtype

  ColumnGather latents_;              // [tokens, q_lora_rank + kv_lora_rank + qk_rope]
  AlignedBuffer<float> normed_;       // the same, normed, the rope part turned
  AlignedBuffer<float> q_;            // [tokens, heads, qk_nope + qk_rope]
  AlignedBuffer<float> absorbed_;     // [tokens, heads, kv_lora_rank]; the outputs, too
  AlignedBuffer<float> lse_;          // [tokens, heads], not used
  AlignedBuffer<std::byte> queries_;  // [tokens, heads, row_width] of kv_dtype
  ColumnGather values_;               // [tokens, all heads * v_head_dim]
  std::vector<kernels::LinearParams> layers_;

  const GroupStep* step_ = nullptr;
  std::int64_t rows_to_read_ = 0;  // of each layer's cache
  CacheDecoder decoder_;
  std::optional<StridedResults> results_;     // of decoder_
  std::optional<SplitCacheAttention> split_;  // does what follows the queries where it is in use
  PrefillAttention prefill_;
};

}  // namespace mla::dist
