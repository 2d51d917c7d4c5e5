#pragma once

#include <cstdint>
#include <string_view>

#include "core/host_device.h"

namespace mla {

/// Element types of tensors.
enum class DType : std::uint8_t { kBf16 = 1, kFp16 = 2, kFp32 = 3 };

/// "bf16", "fp16" or "fp32".
std::string_view name_of(DType dtype);

/// Bytes of one element.
MLA_HOST_DEVICE constexpr std::int64_t size_of(DType dtype) {
  return dtype == DType::kFp32 ? 4 : 2;
}

/// bfloat16 storage: the upper half of an IEEE binary32.
struct Bf16 {
  std::uint16_t bits;
};

/// IEEE binary16 storage.
struct Fp16 {
  std::uint16_t bits;
};

MLA_HOST_DEVICE constexpr float to_float(Bf16 x) {
  return __builtin_bit_cast(float, static_cast<std::uint32_t>(x.bits) << 16);
}

/// Exact, subnormals, infinities and NaN payloads included.
MLA_HOST_DEVICE constexpr float to_float(Fp16 x) {
  const std::uint32_t sign = (x.bits & 0x8000u) << 16;
  const std::uint32_t exponent = (x.bits >> 10) & 0x1fu;
  const std::uint32_t mantissa = x.bits & 0x3ffu;
  if (exponent == 0x1fu) return __builtin_bit_cast(float, sign | 0x7f800000u | mantissa << 13);
  if (exponent == 0) {
    const float magnitude = static_cast<float>(mantissa) * 0x1p-24f;
    return __builtin_bit_cast(float, sign | __builtin_bit_cast(std::uint32_t, magnitude));
  }
  return __builtin_bit_cast(float, sign | (exponent + 112u) << 23 | mantissa << 13);
}

/// Round to nearest, ties to even; NaN stays a (quiet) NaN.
MLA_HOST_DEVICE constexpr Bf16 to_bf16(float x) {
  const auto bits = __builtin_bit_cast(std::uint32_t, x);
  const std::uint32_t quiet = bits >> 16 | 0x40u;
  const std::uint32_t rounded = (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
  const bool is_nan = (bits & 0x7fffffffu) > 0x7f800000u;
  return {static_cast<std::uint16_t>(is_nan ? quiet : rounded)};
}

/// Round to nearest, ties to even; overflow gives infinity; NaN stays a (quiet) NaN. Selects
/// rather than branches, so that loops vectorise.
MLA_HOST_DEVICE constexpr Fp16 to_fp16(float x) {
  const auto bits = __builtin_bit_cast(std::uint32_t, x);
  const std::uint32_t sign = bits >> 16 & 0x8000u;
  const std::uint32_t magnitude = bits & 0x7fffffffu;
  const std::uint32_t rebiased = magnitude - 0x38000000u;
  std::uint32_t result = (rebiased + 0xfffu + (rebiased >> 13 & 1u)) >> 13;
  // For a subnormal, adding 0.5 moves its last place to the last place of the binary32 mantissa, so
  // the addition itself rounds.
  const float shifted = __builtin_bit_cast(float, magnitude) + 0.5f;
  const std::uint32_t subnormal = __builtin_bit_cast(std::uint32_t, shifted) - 0x3f000000u;
  result = magnitude < 0x38800000u ? subnormal : result;  // 2^-14, the smallest normal value
  // 65520, halfway from the largest finite value to 2^16
  result = magnitude >= 0x477ff000u ? 0x7c00u : result;
  result = magnitude > 0x7f800000u ? 0x7e00u | (magnitude >> 13 & 0x3ffu) : result;
  return {static_cast<std::uint16_t>(sign | result)};
}

/// The number that a bit pattern of `dtype`, one of 16 bits, stands for.
MLA_HOST_DEVICE constexpr float to_float(DType dtype, std::uint16_t bits) {
  return dtype == DType::kBf16 ? to_float(Bf16{bits}) : to_float(Fp16{bits});
}

}  // namespace mla
