#include "dist/model/mlp.h"

#include <algorithm>

#include "kernels/activation.h"

namespace mla::dist {

void activate(std::int64_t rows, std::int64_t width, int threads, const float* gate,
              const float* up, float* y, std::int64_t y_stride) {
  constexpr std::int64_t kBlock = 256;  // elements: about a microsecond
  const std::int64_t blocks = ceil_div(width, kBlock);
#pragma omp parallel for schedule(static) num_threads(threads) if (rows * blocks > 4)
  for (std::int64_t i = 0; i < rows * blocks; ++i) {
    const std::int64_t row = i / blocks;
    const std::int64_t begin = i % blocks * kBlock;
    const auto count = static_cast<std::size_t>(std::min(kBlock, width - begin));
    kernels::silu_multiply({gate + row * width + begin, count}, up + row * width + begin,
                           y + row * y_stride + begin);
  }
}

Mlp::Mlp(const RankContext& context, std::int64_t intermediate_size)
    : context_(context),
      activations_(context.group, context.limits.max_tokens, intermediate_size),
      gate_(context.limits.max_tokens * activations_.columns().size()),
      up_(context.limits.max_tokens * activations_.columns().size()) {}

std::int64_t Mlp::buffer_bytes(std::int64_t intermediate_size, const ModelLimits& limits,
                               const ModelSharding& sharding) {
  return ColumnGather::bytes(limits.max_tokens, intermediate_size, sharding.group_size) +
         limits.max_tokens * 2 * ceil_div(intermediate_size, sharding.group_size) * 4;
}

void Mlp::run(const MlpWeights& weights, std::int64_t tokens, const float* x, ColumnGather& out) {
  const Range own = activations_.columns();
  const kernels::LinearParams gate{.weights = weights.gate,
                                   .outputs = own,
                                   .rows = tokens,
                                   .x = x,
                                   .x_stride = weights.gate.cols,
                                   .y = gate_.data(),
                                   .y_stride = own.size()};
  kernels::LinearParams up = gate;
  up.weights = weights.up;
  up.y = up_.data();
  const kernels::LinearParams both[] = {gate, up};
  context_.linear(both);
  activate(tokens, own.size(), context_.threads, gate_.data(), up_.data(), activations_.local(),
           activations_.stride());
  context_.linear({.weights = weights.down,
                   .outputs = out.columns(),
                   .rows = tokens,
                   .x = activations_.gather(tokens),
                   .x_stride = weights.down.cols,
                   .y = out.local(),
                   .y_stride = out.stride()});
}

}  // namespace mla::dist
