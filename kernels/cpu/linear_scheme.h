#pragma once

#include <cstdint>
#include <cstring>

#include "kernels/cpu/tiles.h"
#include "kernels/linear_kernel.h"

namespace mla::kernels::cpu {

/// Linear layers in fp32, whatever the weights: rows of W are widened from where they lie, each
/// element once for a tile of rows of x. Lane j of an output's sums adds up the columns j,
/// j + kLanes, j + 2 kLanes ... in order; then the lanes are added in a fixed tree. `Simd` says,
/// beside what its vectors can do, how many rows of x fill its registers with sums:
///   kLinearRows  rows of a tile; times kOutputs sums, and kOutputs vectors of weights
template <class Simd_>
struct LinearScheme {
  using Simd = Simd_;
  using Vector = typename Simd::Vector;
  static constexpr int kLanes = Simd::kLanes;
  static constexpr int kRows = Simd::kLinearRows;
  static constexpr int kOutputs = 4;
  static_assert(kScaleBlock % kLanes == 0);

  /// Rows whose weights come from memory: W is then passed over from end to end. More rows work on
  /// slabs of columns instead, so that a tile's rows of x stay in L1 for all outputs.
  static constexpr int kFewRows = 4 * kRows;
  static constexpr std::int64_t kSlab = 1024;
  static_assert(kSlab % kScaleBlock == 0);

  /// Some outputs of some rows, as far as some columns.
  struct Tile {
    const LinearParams& layer;
    std::int64_t output;  ///< the first
    std::int64_t row;     ///< the first
    Range columns;
    Vector* sums;  ///< [output][row] of the columns before, and then of these too

    const float* x(int i) const { return layer.x + (row + i) * layer.x_stride; }
    float* y(int i) const {
      return layer.y + (row + i) * layer.y_stride + (output - layer.outputs.begin);
    }
    float scale(int o, std::int64_t column) const {
      const MatrixView& w = layer.weights;
      return w.scales[(output + o) / kScaleBlock * w.scale_cols + column / kScaleBlock];
    }
  };

  template <WeightType kType>
  [[gnu::always_inline]] static Vector widen(const std::byte* from) {
    if constexpr (kType == WeightType::kFp32) {
      return Simd::load(reinterpret_cast<const float*>(from));
    } else if constexpr (kType == WeightType::kFp8E4m3) {
      return Simd::widen_e4m3(reinterpret_cast<const std::uint8_t*>(from));
    } else {
      constexpr DType kHalf = kType == WeightType::kBf16 ? DType::kBf16 : DType::kFp16;
      return Simd::template widen<kHalf>(reinterpret_cast<const std::uint16_t*>(from));
    }
  }

  /// The sums of a tile, in registers.
  template <WeightType kType, int kTileOutputs, int kTileRows>
  struct Sums {
    Vector sum[kTileOutputs][kTileRows] = {};
    Vector scale[kTileOutputs] = {};

    [[gnu::always_inline]] void set_scales(const Tile& tile, std::int64_t column) {
      if constexpr (kType == WeightType::kFp8E4m3) {
        for (int o = 0; o < kTileOutputs; ++o) scale[o] = Simd::broadcast(tile.scale(o, column));
      }
    }

    /// Adds the products of kLanes columns.
    template <class WeightsAt, class RowAt>
    [[gnu::always_inline]] void add(WeightsAt&& weights_at, RowAt&& row_at) {
      Vector x[kTileRows];
#pragma GCC unroll 8
      for (int i = 0; i < kTileRows; ++i) x[i] = Simd::load(row_at(i));
#pragma GCC unroll 8
      for (int o = 0; o < kTileOutputs; ++o) {
        Vector w = widen<kType>(weights_at(o));
        if constexpr (kType == WeightType::kFp8E4m3) w = w * scale[o];
#pragma GCC unroll 8
        for (int i = 0; i < kTileRows; ++i) sum[o][i] = Simd::fma(w, x[i], sum[o][i]);
      }
    }

    [[gnu::always_inline]] void load(const Vector* from) {
#pragma GCC unroll 8
      for (int o = 0; o < kTileOutputs; ++o) {
#pragma GCC unroll 8
        for (int i = 0; i < kTileRows; ++i) sum[o][i] = from[o * kTileRows + i];
      }
    }
    [[gnu::always_inline]] void save(Vector* to) const {
#pragma GCC unroll 8
      for (int o = 0; o < kTileOutputs; ++o) {
#pragma GCC unroll 8
        for (int i = 0; i < kTileRows; ++i) to[o * kTileRows + i] = sum[o][i];
      }
    }

    /// y <- the sums of all columns.
    [[gnu::always_inline]] void finish(const Tile& tile) const {
#pragma GCC unroll 8
      for (int i = 0; i < kTileRows; ++i) {
        Vector of_row[kOutputs] = {};
#pragma GCC unroll 8
        for (int o = 0; o < kTileOutputs; ++o) of_row[o] = sum[o][i];
        float y[kOutputs];
        Simd::add_lanes(of_row, y);
        for (int o = 0; o < kTileOutputs; ++o) tile.y(i)[o] = y[o];
      }
    }
  };

  /// Of all columns, prefetches as many bytes as it reads of W from behind them on.
  template <WeightType kType, int kTileOutputs, int kTileRows>
  [[gnu::noinline]] static void multiply_tile(const Tile& tile) {
    constexpr std::int64_t kSize = size_of(kType);
    const std::int64_t cols = tile.layer.weights.cols;
    const std::int64_t row_bytes = cols * kSize;
    const auto* w =
        static_cast<const std::byte*>(tile.layer.weights.data) + tile.output * row_bytes;
    const std::byte* next = w + kTileOutputs * row_bytes;
    const float* x = tile.x(0);
    const std::int64_t x_stride = tile.layer.x_stride;

    Sums<kType, kTileOutputs, kTileRows> sums;
    if (tile.columns.begin > 0) sums.load(tile.sums);
    const bool prefetches = tile.columns.size() == cols;
    const std::int64_t whole = tile.columns.end - tile.columns.end % kLanes;
    constexpr bool kScaled = kType == WeightType::kFp8E4m3;
    for (std::int64_t begin = tile.columns.begin; begin < whole;) {
      const std::int64_t end = kScaled && begin + kScaleBlock < whole ? begin + kScaleBlock : whole;
      sums.set_scales(tile, begin);
      for (; begin < end; begin += kLanes) {
        constexpr std::int64_t kStepBytes = kTileOutputs * kLanes * kSize;
        for (std::int64_t line = 0; prefetches && line < kStepBytes; line += kLineBytes) {
          __builtin_prefetch(next + begin * kTileOutputs * kSize + line);
        }
        sums.add([&](int o) { return w + o * row_bytes + begin * kSize; },
                 [&](int i) { return x + i * x_stride + begin; });
      }
    }
    if (tile.columns.end < cols) return sums.save(tile.sums);
    if (whole < cols) add_tail(tile, w, whole, sums);
    sums.finish(tile);
  }

  /// The last columns, filled up with zeros.
  template <WeightType kType, int kTileOutputs, int kTileRows>
  [[gnu::always_inline]] static void add_tail(const Tile& tile, const std::byte* w,
                                              std::int64_t whole,
                                              Sums<kType, kTileOutputs, kTileRows>& sums) {
    constexpr std::int64_t kSize = size_of(kType);
    const std::int64_t cols = tile.layer.weights.cols;
    std::byte weights[kTileOutputs][kLanes * kSize] = {};
    float x[kTileRows][kLanes] = {};
    for (int o = 0; o < kTileOutputs; ++o) {
      std::memcpy(weights[o], w + (o * cols + whole) * kSize,
                  static_cast<std::size_t>((cols - whole) * kSize));
    }
    for (int i = 0; i < kTileRows; ++i) {
      std::memcpy(x[i], tile.x(i) + whole, static_cast<std::size_t>(cols - whole) * sizeof(float));
    }
    sums.set_scales(tile, whole);
    sums.add([&](int o) { return weights[o]; }, [&](int i) { return x[i]; });
  }

  /// All outputs of some rows.
  template <WeightType kType, int kTileRows>
  static void multiply_rows(const LinearParams& layer, Range outputs, std::int64_t row) {
    const std::int64_t cols = layer.weights.cols;
    const std::int64_t step = layer.rows <= kFewRows || cols < kSlab ? cols : kSlab;
    Vector sums[kMostLinearOutputs * kTileRows];
    Range columns{0, step};
    for (; columns.begin < cols; columns = {columns.end, columns.end + step}) {
      if (columns.end > cols) columns.end = cols;
      const auto sums_of = [&](std::int64_t o) { return sums + (o - outputs.begin) * kTileRows; };
      std::int64_t output = outputs.begin;
      for (; output + kOutputs <= outputs.end; output += kOutputs) {
        multiply_tile<kType, kOutputs, kTileRows>({layer, output, row, columns, sums_of(output)});
      }
      for (; output < outputs.end; ++output) {
        multiply_tile<kType, 1, kTileRows>({layer, output, row, columns, sums_of(output)});
      }
    }
  }

  /// As many outputs at a time as have their weights in L2 for all rows.
  template <WeightType kType>
  static void multiply_typed(const LinearParams& layer, Range outputs) {
    const std::int64_t fit = kBytesInL2 / (layer.weights.cols * size_of(kType)) / kOutputs;
    const std::int64_t step = fit > 1 ? fit * kOutputs : kOutputs;
    for (Range some = outputs; some.begin < outputs.end; some.begin = some.end) {
      some.end = some.begin + step < outputs.end ? some.begin + step : outputs.end;
      deal(layer.rows, kRows, [&](std::int64_t row, std::int64_t rows) {
        with_constant<kRows>(
            rows, [&]<int kTileRows>() { multiply_rows<kType, kTileRows>(layer, some, row); });
      });
    }
  }

  /// `LinearKernel::multiply`
  static void multiply(const LinearParams& layer, Range outputs) {
    switch (layer.weights.type) {
      case WeightType::kBf16:
        return multiply_typed<WeightType::kBf16>(layer, outputs);
      case WeightType::kFp16:
        return multiply_typed<WeightType::kFp16>(layer, outputs);
      case WeightType::kFp32:
        return multiply_typed<WeightType::kFp32>(layer, outputs);
      case WeightType::kFp8E4m3:
        return multiply_typed<WeightType::kFp8E4m3>(layer, outputs);
    }
  }

 private:
  static constexpr std::int64_t kLineBytes = 64;
  static constexpr std::int64_t kBytesInL2 = std::int64_t{1} << 19;
};

}  // namespace mla::kernels::cpu
