#pragma once

#include <cstdint>

#include "core/host_device.h"

// Elementary functions whose bits are the same wherever they run, on hosts and on devices: plain
// additions, multiplications and divisions of doubles, in an order that the source spells out, none
// of them fused. What a C library computes differs between libraries, and from what a device's
// does.

#define MLA_EXACT_INLINE [[gnu::always_inline]] MLA_HOST_DEVICE inline

namespace mla {
namespace exact_math {

// Device compilers fuse by default, so there the roundings are asked for by name.
#if defined(__CUDA_ARCH__) || defined(__HIP_DEVICE_COMPILE__) || defined(__MUSA_ARCH__)
MLA_EXACT_INLINE double add(double a, double b) {
  return __dadd_rn(a, b);
}
MLA_EXACT_INLINE double mul(double a, double b) {
  return __dmul_rn(a, b);
}
MLA_EXACT_INLINE double div(double a, double b) {
  return __ddiv_rn(a, b);
}
#else
MLA_EXACT_INLINE double add(double a, double b) {
  return a + b;
}
MLA_EXACT_INLINE double mul(double a, double b) {
  return a * b;
}
MLA_EXACT_INLINE double div(double a, double b) {
  return a / b;
}
#endif
MLA_EXACT_INLINE double sub(double a, double b) {
  return add(a, -b);
}

/// a + b x
MLA_EXACT_INLINE double line(double a, double b, double x) {
  return add(a, mul(b, x));
}

MLA_EXACT_INLINE double from_bits(std::int64_t bits) {
  return __builtin_bit_cast(double, bits);
}
MLA_EXACT_INLINE std::int64_t bits_of(double x) {
  return __builtin_bit_cast(std::int64_t, x);
}

}  // namespace exact_math

/// 2^x for x <= 0, in double within one unit of the last place, so that as a float it is the
/// correctly rounded value in all but about one of 2^28 cases; subnormal results too, 0 below them
/// (-inf too), exact at integers. NaN gives NaN.
/// Method: n the integer next to x, f = x - n; 2^f = 1 + f ln 2 + ... to degree 13, where f has no
/// more bits than x, so that its product with the upper half of ln 2 is exact.
MLA_EXACT_INLINE float exp2_exact(float x) {
  using namespace exact_math;
  if (x < -160.0F) return 0.0F;
  constexpr double kToInteger = 0x1.8p52;  // adding it leaves the rounded integer in the low bits
  const double wide = static_cast<double>(x);
  const double shifted = add(wide, kToInteger);
  const double f = sub(wide, sub(shifted, kToInteger));
  const double f2 = mul(f, f);
  const double f4 = mul(f2, f2);

  const double p2 = line(0x1.ebfbdff82c58fp-3, 0x1.c6b08d704a0c0p-5, f);
  const double p4 = line(0x1.3b2ab6fba4e77p-7, 0x1.5d87fe78a6731p-10, f);
  const double p6 = line(0x1.430912f86c787p-13, 0x1.ffcbfc588b0c7p-17, f);
  const double p8 = line(0x1.62c0223a5c824p-20, 0x1.b5253d395e7c4p-24, f);
  const double p10 = line(0x1.e4cf5158b8ecap-28, 0x1.e8cac7351bb25p-32, f);
  const double p12 = line(0x1.c3bd650fc2986p-36, 0x1.816193166d0f9p-40, f);
  const double tail = line(line(p2, p4, f2), line(line(p6, p8, f2), line(p10, p12, f2), f4), f4);

  const double head = mul(f, 0x1.62e42fep-1);
  const double rest = line(mul(f, 0x1.f473de6af278fp-30), tail, f2);
  const double power = add(1.0, add(head, rest));
  const std::int64_t n = bits_of(shifted) - bits_of(kToInteger);
  // For a NaN n is anything, and the product still NaN.
  const auto scale_bits = static_cast<std::uint64_t>(n + 1023) << 52;
  return static_cast<float>(mul(power, from_bits(static_cast<std::int64_t>(scale_bits))));
}

/// log2 x in double within one unit of the last place. 0 gives -inf, +inf +inf, negative numbers
/// and NaN NaN. Method: x = 2^k (1 + f), 1 + f in [sqrt 1/2, sqrt 2), s = f / (2 + f); ln(1 + f) =
/// 2 atanh s = f - f^2 / 2 + s (f^2 / 2 + r), r the rest of the series, with the large terms kept
/// in two parts (as in fdlibm by Sun Microsystems).
MLA_EXACT_INLINE double log2_exact(float x) {
  using namespace exact_math;
  const double wide = static_cast<double>(x);
  constexpr std::int64_t kInfinity = std::int64_t{0x7ff} << 52;
  if (!(x > 0.0F)) return from_bits(x == 0.0F ? kInfinity | std::int64_t{-1} << 63 : kInfinity | 1);
  if (bits_of(wide) >= kInfinity) return wide;
  constexpr std::int64_t kSqrtHalf = 0x3fe6a09e667f3bcd;
  const std::int64_t k = (bits_of(wide) - kSqrtHalf) >> 52;
  const auto exponent = static_cast<std::uint64_t>(k) << 52;
  const auto fraction =
      static_cast<std::int64_t>(static_cast<std::uint64_t>(bits_of(wide)) - exponent);
  const double f = sub(from_bits(fraction), 1.0);
  const double s = div(f, add(2.0, f));
  const double z = mul(s, s);
  const double z2 = mul(z, z);

  const double r1 = line(2.0 / 3, 2.0 / 5, z);
  const double r3 = line(2.0 / 7, 2.0 / 9, z);
  const double r5 = line(2.0 / 11, 2.0 / 13, z);
  const double r7 = line(2.0 / 15, 2.0 / 17, z);
  const double r9 = line(2.0 / 19, 2.0 / 21, z);
  const double r = mul(z, line(r1, line(r3, line(r5, line(r7, r9, z2), z2), z2), z2));

  const double half_square = mul(0.5, mul(f, f));  // exact, as f has at most 24 bits
  const double high = from_bits(bits_of(sub(f, half_square)) & ~((std::int64_t{1} << 27) - 1));
  const double low = add(sub(sub(f, high), half_square), mul(s, add(half_square, r)));
  constexpr double kInvLn2High = 0x1.7154760p+0;  // 26 bits: its product with `high` is exact
  constexpr double kInvLn2Low = 0x1.4ae0bf85ddf44p-26;
  const double product = mul(high, kInvLn2High);
  const double product_low = add(mul(add(low, high), kInvLn2Low), mul(low, kInvLn2High));
  const double whole = static_cast<double>(k);
  const double sum = add(whole, product);
  const double sum_low = add(sub(whole, sum), product);
  return add(sum, add(sum_low, product_low));
}

/// What `finalize_lse` comes to for a row with these m and l: (m + log2 l) ln 2; +inf for a row
/// that saw no key.
MLA_EXACT_INLINE float lse_exact(float m_log2, float l) {
  using namespace exact_math;
  constexpr double kLn2 = 0x1.62e42fefa39efp-1;
  if (m_log2 == -__builtin_huge_valf()) return __builtin_huge_valf();
  return static_cast<float>(mul(add(static_cast<double>(m_log2), log2_exact(l)), kLn2));
}

}  // namespace mla
