#pragma once

#include <bit>
#include <cstdint>
#include <cstring>

#include "core/dtype.h"

// Branch-free arithmetic, so that loops over it vectorise, and a vector type for the loops that
// compilers vectorise badly by themselves.

namespace mla::kernels::portable {

/// Four floats, on any target: the compiler splits or emulates what the CPU lacks.
using Vector [[gnu::vector_size(16)]] = float;

inline Vector load(const float* from) {
  Vector v;
  std::memcpy(&v, from, sizeof v);
  return v;
}

inline void store(float* to, Vector v) {
  std::memcpy(to, &v, sizeof v);
}

inline float widen_bf16(std::uint16_t bits) {
  return to_float(Bf16{bits});
}

/// The half's exponent and mantissa, moved to their places in a float, are a number 2^112 too
/// small; multiplying is exact, for subnormals too. Infinity and NaN get their exponent back.
inline float widen_fp16(std::uint16_t bits) {
  const std::uint32_t magnitude = bits & 0x7fffU;
  const float scaled = std::bit_cast<float>(magnitude << 13) * 0x1p112F;
  const std::uint32_t special = magnitude >= 0x7c00U ? 0x7f800000U : 0U;
  const std::uint32_t sign = (bits & 0x8000U) << 16;
  return std::bit_cast<float>(std::bit_cast<std::uint32_t>(scaled) | special | sign);
}

/// 2^x for x <= 0 with a relative error below 2e-7; exactly 0 below the smallest normal number
/// (-inf too), exactly 1 at 0; NaN stays NaN. Round to the nearest integer n, a minimax polynomial
/// (relative error, constant term 1) on [-1/2, 1/2], scale by 2^n.
inline float exp2(float x) {
  constexpr float kRounder = 0x1.8p23F;  // adding it leaves the nearest integer in the last bits
  const float clamped = x < -126.0F ? -126.0F : x;
  const float rounded = clamped + kRounder;
  const float f = clamped - (rounded - kRounder);
  float p = 1.326472862e-3F;
  p = p * f + 9.671513720e-3F;
  p = p * f + 5.550733750e-2F;
  p = p * f + 2.402224207e-1F;
  p = p * f + 6.931469776e-1F;
  p = p * f + 1.0F;
  const std::uint32_t n =
      std::bit_cast<std::uint32_t>(rounded) - std::bit_cast<std::uint32_t>(kRounder);
  const float scaled = p * std::bit_cast<float>((n + 127U) << 23);
  return x < -126.0F ? 0.0F : scaled;
}

}  // namespace mla::kernels::portable
