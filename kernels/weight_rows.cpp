#include "kernels/weight_rows.h"

#include "core/every_cpu.h"

namespace mla::kernels {
namespace {

float widen_fp8(std::uint8_t bits) {
  const std::uint32_t sign = (bits & 0x80U) << 24;
  const std::uint32_t magnitude = bits & 0x7fU;
  if (magnitude == 0x7f) return __builtin_bit_cast(float, sign | 0x7fc00000U);
  if (magnitude < 8) {
    const float value = static_cast<float>(magnitude) * 0x1p-9F;
    return __builtin_bit_cast(float, sign | __builtin_bit_cast(std::uint32_t, value));
  }
  return __builtin_bit_cast(float, sign | ((magnitude << 20) + (120U << 23)));
}

template <class T>
const T* row_of(const MatrixView& matrix, std::int64_t row) {
  return static_cast<const T*>(matrix.data) + row * matrix.cols;
}

template <class T>
void transpose(const MatrixView& matrix, Range rows, T* to) {
  for (std::int64_t row = rows.begin; row < rows.end; ++row) {
    const T* const from = row_of<T>(matrix, row);
    T* const column = to + row - rows.begin;
    for (std::int64_t c = 0; c < matrix.cols; ++c) column[c * rows.size()] = from[c];
  }
}

}  // namespace

void widen_row(const MatrixView& matrix, std::int64_t row, float* to) noexcept {
  const std::int64_t cols = matrix.cols;
  switch (matrix.type) {
    case WeightType::kFp32: {
      const float* const from = row_of<float>(matrix, row);
      for (std::int64_t c = 0; c < cols; ++c) to[c] = from[c];
      return;
    }
    case WeightType::kBf16: {
      const Bf16* const from = row_of<Bf16>(matrix, row);
      for (std::int64_t c = 0; c < cols; ++c) to[c] = to_float(from[c]);
      return;
    }
    case WeightType::kFp16: {
      const Fp16* const from = row_of<Fp16>(matrix, row);
      for (std::int64_t c = 0; c < cols; ++c) to[c] = to_float(from[c]);
      return;
    }
    case WeightType::kFp8E4m3: {
      const auto* const from = row_of<std::uint8_t>(matrix, row);
      const float* const scales = matrix.scales + row / kScaleBlock * matrix.scale_cols;
      for (std::int64_t c = 0; c < cols; ++c) to[c] = widen_fp8(from[c]) * scales[c / kScaleBlock];
      return;
    }
  }
}

void transpose_rows(const MatrixView& matrix, Range rows, float* row_scratch, void* to) noexcept {
  if (size_of(matrix.type) == 2) {
    return transpose(matrix, rows, static_cast<std::uint16_t*>(to));
  }
  for (std::int64_t row = rows.begin; row < rows.end; ++row) {
    widen_row(matrix, row, row_scratch);
    float* const column = static_cast<float*>(to) + row - rows.begin;
    for (std::int64_t c = 0; c < matrix.cols; ++c) column[c * rows.size()] = row_scratch[c];
  }
}

MLA_FOR_EVERY_CPU
void store_scaled(DType dtype, const float* from, std::int64_t n, float scale, void* to) noexcept {
  switch (dtype) {
    case DType::kBf16: {
      auto* const bits = static_cast<Bf16*>(to);
      for (std::int64_t i = 0; i < n; ++i) bits[i] = to_bf16(from[i] * scale);
      return;
    }
    case DType::kFp16: {
      auto* const bits = static_cast<Fp16*>(to);
      for (std::int64_t i = 0; i < n; ++i) bits[i] = to_fp16(from[i] * scale);
      return;
    }
    case DType::kFp32: {
      auto* const floats = static_cast<float*>(to);
      for (std::int64_t i = 0; i < n; ++i) floats[i] = from[i] * scale;
      return;
    }
  }
}

}  // namespace mla::kernels
