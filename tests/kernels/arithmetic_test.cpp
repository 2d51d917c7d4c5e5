#include "kernels/cpu/portable/arithmetic.h"

#include <bit>
#include <cmath>
#include <limits>

#include <gtest/gtest.h>

namespace mla::kernels::portable {
namespace {

TEST(Exp2, IsWithinTwoPartsInTenMillion) {
  for (float x = 0; x >= -125.9F; x -= 0.00137F) {
    const double exact = std::exp2(static_cast<double>(x));
    EXPECT_LT(std::fabs(static_cast<double>(exp2(x)) - exact), 2e-7 * exact) << x;
  }
}

TEST(Exp2, IsExactAtWholeNumbers) {
  for (int n = 0; n >= -126; --n) EXPECT_EQ(exp2(static_cast<float>(n)), std::ldexp(1.0F, n));
}

TEST(Exp2, IsZeroBelowTheSmallestNormalNumber) {
  EXPECT_EQ(exp2(-126.001F), 0.0F);
  EXPECT_EQ(exp2(-1e30F), 0.0F);
  EXPECT_EQ(exp2(-std::numeric_limits<float>::infinity()), 0.0F);
}

TEST(Exp2, KeepsNan) {
  EXPECT_TRUE(std::isnan(exp2(std::numeric_limits<float>::quiet_NaN())));
}

TEST(WidenFp16, AgreesWithTheExactConversionForAllBitPatterns) {
  for (std::uint32_t bits = 0; bits <= 0xffff; ++bits) {
    const auto half = static_cast<std::uint16_t>(bits);
    EXPECT_EQ(std::bit_cast<std::uint32_t>(widen_fp16(half)),
              std::bit_cast<std::uint32_t>(to_float(Fp16{half})))
        << bits;
  }
}

}  // namespace
}  // namespace mla::kernels::portable
