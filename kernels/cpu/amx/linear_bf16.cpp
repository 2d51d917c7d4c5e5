#include "kernels/cpu/amx/linear.h"
#include "kernels/cpu/amx/linear_scheme.h"
#include "kernels/cpu/amx/tiles.h"
#include "kernels/cpu/avx512/pairs.h"
#include "kernels/cpu/avx512/transpose.h"

namespace mla::kernels::amx {
namespace {

// Of an unnamed namespace, and so is every template that takes it.
struct Tiles : HardwareTiles {};

/// 16 floats that exist where `valid` says so, else zeros.
[[gnu::always_inline]] inline __m512 load_some(const float* from, std::int64_t left) {
  const unsigned valid = left >= 16 ? 0xffffU : left > 0 ? (1U << left) - 1 : 0;
  return _mm512_maskz_loadu_ps(static_cast<__mmask16>(valid), from);
}

}  // namespace

void pack_linear(const LinearParams& layer, std::int64_t panel, std::byte* to) noexcept {
  constexpr int kRows = kLinearPanelRows;
  const std::int64_t first = panel * kRows;
  const std::int64_t rows = layer.rows - first < kRows ? layer.rows - first : kRows;
  const std::int64_t cols = layer.weights.cols;
  for (std::int64_t column = 0; column < cols; column += kLinearStep) {
    __m512i tile[16] = {};
    for (std::int64_t i = 0; i < rows; ++i) {
      const float* x = layer.x + (first + i) * layer.x_stride + column;
      const __m512 low = load_some(x, cols - column);
      const __m512 high = load_some(x + 16, cols - column - 16);
      tile[i] = reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(high, low));
      tile[kRows + i] = reinterpret_cast<__m512i>(
          _mm512_cvtne2ps_pbh(avx512::residual(high), avx512::residual(low)));
    }
    avx512::transpose(tile);
    for (const __m512i& row : tile) {
      _mm512_store_si512(to, row);
      to += kTileRowBytes;
    }
  }
}

void multiply_linear_bf16(const LinearParams& layer, Range outputs,
                          const std::byte* packed_x) noexcept {
  LinearScheme<Tiles>{layer, packed_x}.multiply(outputs);
}

}  // namespace mla::kernels::amx
