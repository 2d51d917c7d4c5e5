#pragma once

#include <cstdint>
#include <vector>

#include "dist/model/expert_pairs.h"
#include "dist/model/rank_context.h"

namespace mla::dist {

/// to[pairs, hidden] <- the rows of x that the pairs name.
/// @param x_stride elements between rows
void copy_inputs(const ExpertPairs& pairs, std::int64_t hidden, const float* x,
                 std::int64_t x_stride, int threads, float* to);

/// y[pairs, outputs] <- silu(gate x) * up x by each pair's expert, for the rows `outputs` of its
/// matrices.
/// @param inputs [pairs, hidden]
/// @param gate,up scratch [pairs, outputs]; `y` may be `gate` if it has no gaps
/// @param layers scratch
void activate_experts(const RankContext& context, const MoeWeights& weights,
                      const ExpertPairs& pairs, const float* inputs, Range outputs, float* gate,
                      float* up, float* y, std::int64_t y_stride,
                      std::vector<kernels::LinearParams>& layers);

/// y[pairs, columns] <- the rows `columns` of each pair's down matrix, times activations
/// [pairs, intermediate].
void project_experts(const RankContext& context, const MoeWeights& weights,
                     const ExpertPairs& pairs, const float* activations, Range columns, float* y,
                     std::vector<kernels::LinearParams>& layers);

}  // namespace mla::dist
