#include "dist/model/mlp.h"

#include <algorithm>

#include "kernels/activation.h"

namespace mla::dist {

void activate(std::int64_t rows, std::int64_t width, int threads, float* gate, const float* up) {
  constexpr std::int64_t kBlock = 512;  // elements: some microseconds
  const std::int64_t size = rows * width;
#pragma omp parallel for schedule(static) num_threads(threads) if (size > 2 * kBlock)
  for (std::int64_t begin = 0; begin < size; begin += kBlock) {
    const auto count = static_cast<std::size_t>(std::min(kBlock, size - begin));
    kernels::silu_multiply({gate + begin, count}, up + begin);
  }
}

Mlp::Mlp(const RankContext& context, std::int64_t intermediate_size)
    : context_(context),
      activations_(context.group, context.limits.max_tokens, intermediate_size),
      up_(context.limits.max_tokens * activations_.columns().size()) {}

std::int64_t Mlp::buffer_bytes(std::int64_t intermediate_size, const ModelLimits& limits,
                               const ModelSharding& sharding) {
  return ColumnGather::bytes(limits.max_tokens, intermediate_size, sharding.group_size) +
         limits.max_tokens * ceil_div(intermediate_size, sharding.group_size) * 4;
}

void Mlp::run(const MlpWeights& weights, std::int64_t tokens, const float* x, ColumnGather& out) {
  const Range own = activations_.columns();
  const kernels::LinearParams gate{.weights = weights.gate,
                                   .outputs = own,
                                   .rows = tokens,
                                   .x = x,
                                   .x_stride = weights.gate.cols,
                                   .y = activations_.local(),
                                   .y_stride = activations_.stride()};
  kernels::LinearParams up = gate;
  up.weights = weights.up;
  up.y = up_.data();
  const kernels::LinearParams both[] = {gate, up};
  context_.linear(both);
  activate(tokens, own.size(), context_.threads, activations_.local(), up_.data());
  context_.linear({.weights = weights.down,
                   .outputs = out.columns(),
                   .rows = tokens,
                   .x = activations_.gather(tokens),
                   .x_stride = weights.down.cols,
                   .y = out.local(),
                   .y_stride = out.stride()});
}

}  // namespace mla::dist
