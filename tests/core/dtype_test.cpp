#include "core/dtype.h"

#include <cmath>
#include <limits>

#include <gtest/gtest.h>

#include "tests/core/special_floats.h"

namespace mla {
namespace {

/// The textbook value of a binary floating-point pattern: an independent statement of both types.
struct Format {
  int exponent_bits;
  int mantissa_bits;

  int bias() const { return (1 << (exponent_bits - 1)) - 1; }
  int exponent_of(unsigned bits) const {
    return bits >> mantissa_bits & ((1 << exponent_bits) - 1);
  }
  int mantissa_of(unsigned bits) const {
    return static_cast<int>(bits) & ((1 << mantissa_bits) - 1);
  }
  bool is_nan(unsigned bits) const {
    return exponent_of(bits) == (1 << exponent_bits) - 1 && mantissa_of(bits) != 0;
  }
  double value(unsigned bits) const {
    const double sign = bits & 0x8000U ? -1 : 1;
    const int exponent = exponent_of(bits);
    if (exponent == (1 << exponent_bits) - 1) return sign * HUGE_VAL;
    const int implicit = exponent == 0 ? 0 : 1 << mantissa_bits;
    return sign *
           std::ldexp(mantissa_of(bits) + implicit, std::max(exponent, 1) - bias() - mantissa_bits);
  }
};

struct Bf16Case {
  using Type = Bf16;
  static constexpr Format format{8, 7};
  static constexpr unsigned kInfinity = 0x7f80;
  static Type round(float x) { return to_bf16(x); }
};

struct Fp16Case {
  using Type = Fp16;
  static constexpr Format format{5, 10};
  static constexpr unsigned kInfinity = 0x7c00;
  static Type round(float x) { return to_fp16(x); }
};

template <class Case>
class HalfType : public testing::Test {
 protected:
  static float widen(unsigned bits) {
    return to_float(typename Case::Type{static_cast<std::uint16_t>(bits)});
  }
};

using HalfTypes = testing::Types<Bf16Case, Fp16Case>;
TYPED_TEST_SUITE(HalfType, HalfTypes);

TYPED_TEST(HalfType, WidensEveryPatternExactly) {
  for (unsigned bits = 0; bits <= 0xffff; ++bits) {
    const float value = this->widen(bits);
    if (TypeParam::format.is_nan(bits)) {
      EXPECT_TRUE(std::isnan(value)) << bits;
    } else {
      EXPECT_EQ(static_cast<double>(value), TypeParam::format.value(bits)) << bits;
    }
    EXPECT_EQ(std::signbit(value), bits >> 15 != 0) << bits;
  }
}

TYPED_TEST(HalfType, ComesBackUnchangedFromFloat) {
  for (unsigned bits = 0; bits <= 0xffff; ++bits) {
    const unsigned back = TypeParam::round(this->widen(bits)).bits;
    if (TypeParam::format.is_nan(bits)) {
      const unsigned quiet = bits | 1U << (TypeParam::format.mantissa_bits - 1);
      EXPECT_EQ(back, quiet) << bits;
    } else {
      EXPECT_EQ(back, bits);
    }
  }
}

TYPED_TEST(HalfType, RoundsToTheNearestNeighbourAndTiesToEven) {
  for (unsigned low = 0; low + 1 < TypeParam::kInfinity; ++low) {
    const unsigned high = low + 1;
    const auto middle = static_cast<float>(
        (static_cast<double>(this->widen(low)) + static_cast<double>(this->widen(high))) / 2);
    const unsigned even = low % 2 == 0 ? low : high;
    EXPECT_EQ(TypeParam::round(middle).bits, even);
    EXPECT_EQ(TypeParam::round(std::nextafter(middle, 0.0F)).bits, low);
    EXPECT_EQ(TypeParam::round(std::nextafter(middle, kInf)).bits, high);
    EXPECT_EQ(TypeParam::round(-middle).bits, even | 0x8000U);
  }
}

TYPED_TEST(HalfType, OverflowsToInfinityFromHalfwayOn) {
  const unsigned largest = TypeParam::kInfinity - 1;
  const double step = TypeParam::format.value(largest) - TypeParam::format.value(largest - 1);
  const auto halfway = static_cast<float>(TypeParam::format.value(largest) + step / 2);
  EXPECT_EQ(TypeParam::round(std::nextafter(halfway, 0.0F)).bits, largest);
  EXPECT_EQ(TypeParam::round(halfway).bits, TypeParam::kInfinity);
  EXPECT_EQ(TypeParam::round(-halfway).bits, TypeParam::kInfinity | 0x8000U);
  EXPECT_EQ(TypeParam::round(std::numeric_limits<float>::max()).bits, TypeParam::kInfinity);
  EXPECT_EQ(TypeParam::round(kInf).bits, TypeParam::kInfinity);
}

TYPED_TEST(HalfType, KeepsTheSignOfZeroAndOfWhatUnderflows) {
  EXPECT_EQ(TypeParam::round(0.0F).bits, 0);
  EXPECT_EQ(TypeParam::round(-0.0F).bits, 0x8000);
  EXPECT_EQ(TypeParam::round(std::numeric_limits<float>::denorm_min()).bits, 0);
  EXPECT_EQ(TypeParam::round(-std::numeric_limits<float>::denorm_min()).bits, 0x8000);
}

TYPED_TEST(HalfType, NeverTurnsNanIntoANumber) {
  for (std::uint32_t mantissa = 1; mantissa < 0x800000; mantissa = mantissa * 2 + 1) {
    for (const std::uint32_t sign : {0U, 0x80000000U}) {
      const auto nan = std::bit_cast<float>(sign | 0x7f800000U | mantissa);
      EXPECT_TRUE(TypeParam::format.is_nan(TypeParam::round(nan).bits)) << mantissa;
    }
  }
  const auto tiny_payload = std::bit_cast<float>(0x7f800001U);
  EXPECT_TRUE(TypeParam::format.is_nan(TypeParam::round(tiny_payload).bits));
}

TEST(DType, HasNamesAndSizes) {
  EXPECT_EQ(name_of(DType::kBf16), "bf16");
  EXPECT_EQ(name_of(DType::kFp16), "fp16");
  EXPECT_EQ(name_of(DType::kFp32), "fp32");
  EXPECT_EQ(size_of(DType::kBf16), 2);
  EXPECT_EQ(size_of(DType::kFp16), 2);
  EXPECT_EQ(size_of(DType::kFp32), 4);
}

}  // namespace
}  // namespace mla
