#pragma once

#include <cstdint>

#include "core/dtype.h"
#include "core/model_weights.h"
#include "core/range.h"

namespace mla::kernels {

/// to[matrix.cols] <- row `row` of a matrix of any type, exactly.
void widen_row(const MatrixView& matrix, std::int64_t row, float* to) noexcept;

/// The type of a transposed copy: fp8, whose scales belong to blocks, becomes fp32.
constexpr WeightType transposed_type(WeightType type) {
  return type == WeightType::kFp8E4m3 ? WeightType::kFp32 : type;
}

/// to[matrix.cols, rows.size()] of `transposed_type` <- the rows `rows`, transposed.
/// @param row_scratch [matrix.cols] floats
void transpose_rows(const MatrixView& matrix, Range rows, float* row_scratch, void* to) noexcept;

/// to[n] of `dtype` <- from[n] * scale, rounded.
void store_scaled(DType dtype, const float* from, std::int64_t n, float scale, void* to) noexcept;

}  // namespace mla::kernels
