// The arithmetic of the portable backend's vectors, at a width that every target can do.

#include "kernels/cpu/portable/simd.h"

#include <bit>
#include <cmath>
#include <limits>

#include <gtest/gtest.h>

#include "kernels/cpu/softmax.h"

namespace mla::kernels {
namespace {

using Simd = portable::Simd<16>;

float exp2_of(float x) {
  return cpu::exp2<Simd>(Simd::broadcast(x))[0];
}

TEST(Exp2, IsWithinTwoPartsInTenMillion) {
  for (float x = 0; x >= -125.9F; x -= 0.00137F) {
    const double exact = std::exp2(static_cast<double>(x));
    EXPECT_LT(std::fabs(static_cast<double>(exp2_of(x)) - exact), 2e-7 * exact) << x;
  }
}

TEST(Exp2, IsExactAtWholeNumbers) {
  for (int n = 0; n >= -126; --n) {
    EXPECT_EQ(exp2_of(static_cast<float>(n)), std::ldexp(1.0F, n));
  }
}

TEST(Exp2, IsZeroBelowTheSmallestNormalNumber) {
  EXPECT_EQ(exp2_of(-126.001F), 0.0F);
  EXPECT_EQ(exp2_of(-1e30F), 0.0F);
  EXPECT_EQ(exp2_of(-std::numeric_limits<float>::infinity()), 0.0F);
}

TEST(Exp2, KeepsNan) {
  EXPECT_TRUE(std::isnan(exp2_of(std::numeric_limits<float>::quiet_NaN())));
}

template <DType kDType, class Element>
void expect_exact_widening() {
  for (std::uint32_t bits = 0; bits <= 0xffff; ++bits) {
    const auto element = static_cast<std::uint16_t>(bits);
    const std::uint16_t elements[] = {element, element, element, element};
    const float widened = Simd::widen<kDType>(elements)[3];
    EXPECT_EQ(std::bit_cast<std::uint32_t>(widened),
              std::bit_cast<std::uint32_t>(to_float(Element{element})))
        << bits;
  }
}

TEST(PortableSimd, WidensAllBitPatternsOfFp16Exactly) {
  expect_exact_widening<DType::kFp16, Fp16>();
}

TEST(PortableSimd, WidensAllBitPatternsOfBf16Exactly) {
  expect_exact_widening<DType::kBf16, Bf16>();
}

}  // namespace
}  // namespace mla::kernels
