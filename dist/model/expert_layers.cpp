#include "dist/model/expert_layers.h"

#include <algorithm>

#include "dist/model/mlp.h"

namespace mla::dist {
namespace {

/// One matrix of one expert for the rows `rows` of x and y, which have no gaps.
kernels::LinearParams layer_of(const MatrixView& matrix, Range outputs, Range rows, const float* x,
                               float* y) {
  return {.weights = matrix,
          .outputs = outputs,
          .rows = rows.size(),
          .x = x + rows.begin * matrix.cols,
          .x_stride = matrix.cols,
          .y = y + rows.begin * outputs.size(),
          .y_stride = outputs.size()};
}

}  // namespace

void copy_inputs(const ExpertPairs& pairs, std::int64_t hidden, const float* x,
                 std::int64_t x_stride, int threads, float* to) {
#pragma omp parallel for schedule(static) num_threads(threads) if (pairs.size() > 16)
  for (std::int64_t p = 0; p < pairs.size(); ++p) {
    std::copy_n(x + pairs.tokens[p] * x_stride, hidden, to + p * hidden);
  }
}

void activate_experts(const RankContext& context, const MoeWeights& weights,
                      const ExpertPairs& pairs, const float* inputs, Range outputs, float* gate,
                      float* up, float* y, std::int64_t y_stride,
                      std::vector<kernels::LinearParams>& layers) {
  layers.clear();
  for (std::int64_t e = pairs.experts.begin; e < pairs.experts.end; ++e) {
    const Range rows = pairs.pairs_of(e);
    if (rows.empty()) continue;
    layers.push_back(layer_of(weights.experts[e].gate, outputs, rows, inputs, gate));
    layers.push_back(layer_of(weights.experts[e].up, outputs, rows, inputs, up));
  }
  context.linear(layers);
  activate(pairs.size(), outputs.size(), context.threads, gate, up, y, y_stride);
}

void project_experts(const RankContext& context, const MoeWeights& weights,
                     const ExpertPairs& pairs, const float* activations, Range columns, float* y,
                     std::vector<kernels::LinearParams>& layers) {
  layers.clear();
  for (std::int64_t e = pairs.experts.begin; e < pairs.experts.end; ++e) {
    const Range rows = pairs.pairs_of(e);
    if (rows.empty()) continue;
    layers.push_back(layer_of(weights.experts[e].down, columns, rows, activations, y));
  }
  context.linear(layers);
}

}  // namespace mla::dist
