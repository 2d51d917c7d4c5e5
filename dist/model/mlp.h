#pragma once

#include <cstdint>
#include <vector>

#include "core/aligned_buffer.h"
#include "dist/model/gather.h"
#include "dist/model/rank_context.h"

namespace mla::dist {

/// An MLP, down(silu(gate x) * up x), whose rows the ranks of a group share: the dense ones, and
/// the shared experts as one.
///
///   x (all) -> gate and up: own rows -> gather -> down: own rows -> out
class Mlp {
 public:
  /// Collective over the group.
  Mlp(const RankContext& context, std::int64_t intermediate_size);

  /// This rank's columns of the MLP of x [tokens, hidden] into `out`. Collective over the group.
  void run(const MlpWeights& weights, std::int64_t tokens, const float* x, ColumnGather& out);

  static std::int64_t buffer_bytes(std::int64_t intermediate_size, const ModelLimits& limits,
                                   const ModelSharding& sharding);

 private:
  const RankContext& context_;
  ColumnGather activations_;   // [tokens, intermediate]
  AlignedBuffer<float> gate_;  // [tokens, own part of intermediate]
  AlignedBuffer<float> up_;    // [tokens, own part of intermediate]
};

/// y[rows, width] <- silu(gate) * up, both without gaps, on `threads` threads.
void activate(std::int64_t rows, std::int64_t width, int threads, const float* gate,
              const float* up, float* y, std::int64_t y_stride);

}  // namespace mla::dist
