#pragma once

#include <cstdint>

#include "core/range.h"
#include "kernels/cpu/amx/tiles.h"
#include "kernels/linear_kernel.h"

namespace mla::kernels::amx {

inline constexpr int kLinearStep = 32;  ///< columns of a tile

/// Bytes of a panel of x. Each number of x becomes two of bf16, the second being what rounding the
/// first left; their sums are computed apart and added at the end. A panel is a tile for each 32
/// columns, with a row for each pair of columns: pairs of first numbers, one for each row of x,
/// then pairs of second numbers.
[[gnu::always_inline]] inline std::int64_t linear_panel_bytes(std::int64_t cols) noexcept {
  return ceil_div(cols, kLinearStep) * kTileRows * kTileRowBytes;
}

/// `LinearKernel::pack`. Needs a CPU with AVX512-BF16.
void pack_linear(const LinearParams& layer, std::int64_t panel, std::byte* to) noexcept;

/// `LinearKernel::multiply` for bf16 weights. Needs what `decode_bf16` does.
void multiply_linear_bf16(const LinearParams& layer, Range outputs,
                          const std::byte* packed_x) noexcept;

}  // namespace mla::kernels::amx
