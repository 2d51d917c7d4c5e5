#include "dist/model/mlp.h"

#include <algorithm>

#include "kernels/activation.h"

namespace mla::dist {

Mlp::Mlp(const RankContext& context, const Communicator& group, std::int64_t max_rows,
         std::int64_t intermediate_size)
    : context_(context),
      activations_(group, max_rows, intermediate_size),
      up_(max_rows * activations_.columns().size()) {}

std::int64_t Mlp::buffer_bytes(std::int64_t max_rows, std::int64_t intermediate_size, int ranks) {
  return ColumnGather::bytes(max_rows, intermediate_size, ranks) +
         max_rows * ceil_div(intermediate_size, ranks) * 4;
}

void Mlp::run(std::span<const Part> parts, const float* x, Range columns, float* y,
              std::int64_t y_stride) {
  const Range own = activations_.columns();
  layers_.clear();
  for (const Part& part : parts) {
    const MatrixView& gate = part.weights->gate;
    kernels::LinearParams layer{.weights = gate,
                                .outputs = own,
                                .rows = part.rows.size(),
                                .x = x + part.rows.begin * gate.cols,
                                .x_stride = gate.cols,
                                .y = activations_.local() + part.rows.begin * activations_.stride(),
                                .y_stride = activations_.stride()};
    layers_.push_back(layer);
    layer.weights = part.weights->up;
    layer.y = up_.data() + part.rows.begin * own.size();
    layer.y_stride = own.size();
    layers_.push_back(layer);
  }
  context_.linear(layers_);

  const std::int64_t rows = parts.empty() ? 0 : parts.back().rows.end;
  activate(rows);
  const float* const activations = activations_.gather(rows);
  layers_.clear();
  for (const Part& part : parts) {
    const MatrixView& down = part.weights->down;
    layers_.push_back({.weights = down,
                       .outputs = columns,
                       .rows = part.rows.size(),
                       .x = activations + part.rows.begin * down.cols,
                       .x_stride = down.cols,
                       .y = y + part.rows.begin * y_stride,
                       .y_stride = y_stride});
  }
  context_.linear(layers_);
}

void Mlp::run(const MlpWeights& weights, std::int64_t rows, const float* x, ColumnGather& out) {
  const Part all{&weights, {0, rows}};
  run(std::span(&all, 1), x, out.columns(), out.local(), out.stride());
}

/// local() holds gate x, and then silu(gate x) * up x.
void Mlp::activate(std::int64_t rows) {
  constexpr std::int64_t kBlock = 256;  // elements: about a microsecond
  const std::int64_t width = activations_.columns().size();
  const std::int64_t blocks = ceil_div(width, kBlock);
#pragma omp parallel for schedule(static) num_threads(context_.threads) if (rows * blocks > 4)
  for (std::int64_t i = 0; i < rows * blocks; ++i) {
    const std::int64_t row = i / blocks;
    const std::int64_t begin = i % blocks * kBlock;
    const auto count = static_cast<std::size_t>(std::min(kBlock, width - begin));
    float* const gate = activations_.local() + row * activations_.stride() + begin;
    kernels::silu_multiply({gate, count}, up_.data() + row * width + begin, gate);
  }
}

}  // namespace mla::dist
