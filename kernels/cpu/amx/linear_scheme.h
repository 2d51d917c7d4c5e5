#pragma once

#include <cstddef>
#include <cstdint>

#include <immintrin.h>

#include "kernels/cpu/amx/linear.h"
#include "kernels/cpu/amx/sums.h"
#include "kernels/cpu/avx512/transpose.h"

// Included only by files compiled for AMX and AVX-512; `Tiles` is a type of an unnamed namespace,
// so that nothing here is linked elsewhere.

namespace mla::kernels::amx {

/// A layer with bf16 weights, and the products of some of its outputs with some panels of x.
template <class Tiles>
struct LinearScheme {
  static constexpr int kOutputs = kTileRows;
  static constexpr std::int64_t kTileBytes = kTileRows * kTileRowBytes;
  static constexpr std::int64_t kStepsAhead = 8;

  const LinearParams& layer;
  const std::byte* packed_x;
  std::int64_t cols = layer.weights.cols;
  std::int64_t row_bytes = cols * 2;
  std::int64_t panel_bytes = linear_panel_bytes(cols);

  const std::byte* weights(std::int64_t output) const {
    return static_cast<const std::byte*>(layer.weights.data) + output * row_bytes;
  }

  /// A tile of the weights of `count` outputs, from the column of `step` on; zeros beyond them.
  [[gnu::always_inline]] void copy_weights(std::int64_t output, std::int64_t count,
                                           std::int64_t step, std::uint32_t* tile) const {
    const std::int64_t left = cols - step * kLinearStep;
    const auto valid = left >= kLinearStep ? ~__mmask32{0} : (__mmask32{1} << left) - 1;
    const std::byte* from = weights(output) + step * kTileRowBytes;
    for (int i = 0; i < kTileRows; ++i, from += row_bytes, tile += kTileRowBytes / 4) {
      const __mmask32 mask = i < count ? valid : 0;
      _mm512_store_si512(tile, _mm512_maskz_loadu_epi16(mask, from));
    }
  }

  /// y[row][output] of one panel for `count` outputs, from their sums [output][row, then row].
  [[gnu::always_inline]] void store_panel(const float* sums, std::int64_t panel,
                                          std::int64_t output, std::int64_t count) const {
    __m512i columns[16];
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i) columns[i] = _mm512_load_si512(sums + i * 16);
    avx512::transpose(columns);
    const std::int64_t row = panel * kLinearPanelRows;
    float* y = layer.y + row * layer.y_stride + (output - layer.outputs.begin);
    const auto valid = static_cast<__mmask16>((1U << count) - 1);
#pragma GCC unroll 8
    for (int i = 0; i < kLinearPanelRows; ++i, y += layer.y_stride) {
      if (row + i >= layer.rows) return;
      const __m512 sum = _mm512_add_ps(_mm512_castsi512_ps(columns[i]),
                                       _mm512_castsi512_ps(columns[kLinearPanelRows + i]));
      _mm512_mask_storeu_ps(y, valid, sum);
    }
  }

  /// kA whole tiles of outputs, or one of `count` outputs, times kB panels. Prefetches W
  /// kStepsAhead steps ahead, at the end of the rows from the begin of those behind them.
  template <int kA, int kB>
  void multiply_tiles(std::int64_t output, std::int64_t count, std::int64_t panel) const {
    using Product = Sums<Tiles, kA, kB>;
    const bool whole = count == kOutputs;
    const std::int64_t whole_steps = whole ? cols / kLinearStep : 0;
    const auto x_at = [&](int j, std::int64_t step) {
      const std::byte* data = packed_x + (panel + j) * panel_bytes + step * kTileBytes;
      return Operand{data, kTileRowBytes, kTileBytes};
    };
    Operand w[kA];
    Operand x[kB];
    for (int i = 0; i < kA; ++i) w[i] = {weights(output + i * kOutputs), row_bytes, kTileRowBytes};
    for (int j = 0; j < kB; ++j) x[j] = x_at(j, 0);
    std::int64_t step = 0;
    Product::zero();
    Product::multiply_add(
        w, x, whole_steps, [&]() __attribute__((always_inline)) {
          const std::int64_t ahead = step + kStepsAhead - whole_steps;
          const std::byte* line = ahead < 0
                                      ? weights(output) + (step + kStepsAhead) * kTileRowBytes
                                      : weights(output + kA * kOutputs) + ahead * kTileRowBytes;
          for (int i = 0; i < kA * kTileRows; ++i, line += row_bytes)
            __builtin_prefetch(line, 0, 2);
          ++step;
        });
    alignas(64) std::uint32_t copies[kA * kTileWords];
    for (; step * kLinearStep < cols; ++step) {
      for (int i = 0; i < kA; ++i) {
        copy_weights(output + i * kOutputs, count, step, copies + i * kTileWords);
        w[i] = packed_tiles(copies + i * kTileWords);
      }
      for (int j = 0; j < kB; ++j) x[j] = x_at(j, step);
      Product::multiply_add(w, x, 1, [] {});
    }
    alignas(64) float sums[kA * kB * kTileWords];
    Product::store([&](int i, int j) { return sums + (i * kB + j) * kTileWords; });
    for (int i = 0; i < kA * kB; ++i) {
      store_panel(sums + i * kTileWords, panel + i % kB, output + i / kB * kOutputs, count);
    }
  }

  /// All of `outputs` times kB panels.
  template <int kB>
  void multiply_panels(Range outputs, std::int64_t panel) const {
    std::int64_t output = outputs.begin;
    for (; output + 2 * kOutputs <= outputs.end; output += 2 * kOutputs) {
      multiply_tiles<2, kB>(output, kOutputs, panel);
    }
    for (; output < outputs.end; output += kOutputs) {
      const std::int64_t left = outputs.end - output;
      multiply_tiles<1, kB>(output, left < kOutputs ? left : kOutputs, panel);
    }
  }

  void multiply(Range outputs) const {
    Tiles::configure();
    const std::int64_t panels = ceil_div(layer.rows, kLinearPanelRows);
    std::int64_t panel = 0;
    for (; panel + 2 <= panels; panel += 2) multiply_panels<2>(outputs, panel);
    if (panel < panels) multiply_panels<1>(outputs, panel);
    Tiles::release();
  }
};

}  // namespace mla::kernels::amx
