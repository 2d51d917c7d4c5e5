#include "core/exact_math.h"

#include <bit>
#include <cmath>
#include <limits>
#include <numbers>
#include <random>

#include <gtest/gtest.h>

#include "tests/core/special_floats.h"

namespace mla {
namespace {

/// Floats between two values of one sign, close together where they are small.
class FloatWalk {
 public:
  FloatWalk(float from, float to, int steps)
      : bits_(std::bit_cast<std::uint32_t>(from)),
        stride_((std::bit_cast<std::uint32_t>(to) - bits_) / static_cast<std::uint32_t>(steps)) {}
  float next() { return std::bit_cast<float>(bits_ += stride_); }

 private:
  std::uint32_t bits_;
  std::uint32_t stride_;
};

/// Counts where rounding to float gives something else than `expected` does.
struct Rounding {
  int others = 0;
  void see(float value, float expected) {
    others += std::bit_cast<std::uint32_t>(value) != std::bit_cast<std::uint32_t>(expected);
    EXPECT_TRUE(value == expected || std::nextafter(value, expected) == expected)
        << value << " for " << expected;
  }
};

TEST(ExactMath, PowersOfTwoAreExact) {
  for (int x = 0; x >= -149; --x) {
    EXPECT_EQ(exp2_exact(static_cast<float>(x)), std::ldexp(1.0F, x));
  }
  EXPECT_EQ(exp2_exact(-0.0F), 1);
  EXPECT_EQ(exp2_exact(-0.5F), static_cast<float>(std::numbers::sqrt2 / 2));
}

TEST(ExactMath, PowersBelowTheSmallestFloatAreZero) {
  for (const float x : {-150.0F, -151.0F, -159.9F, -160.0F, -200.0F, -1e30F,
                        std::numeric_limits<float>::lowest(), -kInf}) {
    EXPECT_EQ(std::bit_cast<std::uint32_t>(exp2_exact(x)), 0U) << x;
  }
  EXPECT_EQ(exp2_exact(std::nextafter(-150.0F, 0.0F)), std::numeric_limits<float>::denorm_min());
}

TEST(ExactMath, NanStaysNan) {
  EXPECT_TRUE(std::isnan(exp2_exact(kNan)));
  EXPECT_TRUE(std::isnan(exp2_exact(-kNan)));
  EXPECT_TRUE(std::isnan(log2_exact(kNan)));
  EXPECT_TRUE(std::isnan(log2_exact(-1.0F)));
  EXPECT_TRUE(std::isnan(lse_exact(kNan, 1)));
  EXPECT_TRUE(std::isnan(lse_exact(1, kNan)));
}

void see_power(float x, Rounding& rounding) {
  rounding.see(exp2_exact(x), static_cast<float>(std::exp2(static_cast<double>(x))));
}

TEST(ExactMath, PowersAreRoundedFromTheTrueValue) {
  Rounding rounding;
  FloatWalk tiny(-1e-38F, -1e-7F, 500'000);
  FloatWalk usual(-1e-7F, -155.0F, 3'000'000);
  for (int i = 0; i < 500'000; ++i) see_power(tiny.next(), rounding);
  for (int i = 0; i < 3'000'000; ++i) see_power(usual.next(), rounding);
  EXPECT_LE(rounding.others, 1);
}

TEST(ExactMath, SubnormalPowersAreRoundedOnce) {
  Rounding rounding;
  std::mt19937 random(1);
  std::uniform_real_distribution<float> range(-150, -126);
  for (int i = 0; i < 500'000; ++i) see_power(range(random), rounding);
  EXPECT_LE(rounding.others, 1);
}

TEST(ExactMath, LogarithmsAreWithinAUnitOfTheLastPlace) {
  double worst = 0;
  const auto see = [&](float x) {
    const long double expected = std::log2(static_cast<long double>(x));
    const double rounded = std::abs(static_cast<double>(expected));
    const double ulp = std::nextafter(rounded, std::numeric_limits<double>::infinity()) - rounded;
    const long double error = std::abs(static_cast<long double>(log2_exact(x)) - expected);
    worst = std::max(worst, static_cast<double>(error / static_cast<long double>(ulp)));
  };
  FloatWalk all(std::numeric_limits<float>::denorm_min(), std::numeric_limits<float>::max(),
                500'000);
  FloatWalk usual(0.5F, 4.0F, 500'000);
  for (int i = 0; i < 500'000; ++i) see(all.next());
  for (int i = 0; i < 500'000; ++i) see(usual.next());
  EXPECT_LT(worst, 1);
}

TEST(ExactMath, LogarithmsOfPowersOfTwoAreExact) {
  for (int k = -149; k < 128; ++k) EXPECT_EQ(log2_exact(std::ldexp(1.0F, k)), k);
  EXPECT_EQ(log2_exact(0.0F), -kInf);
  EXPECT_EQ(log2_exact(-0.0F), -kInf);
  EXPECT_EQ(log2_exact(kInf), kInf);
}

TEST(ExactMath, LseIsTheRoundedNaturalLogarithm) {
  Rounding rounding;
  std::mt19937 random(2);
  std::uniform_real_distribution<float> maximum(-300, 300);
  std::uniform_real_distribution<float> log_l(0, 20);
  for (int i = 0; i < 500'000; ++i) {
    const float m = maximum(random);
    const float l = std::exp2(log_l(random));
    const double sum = static_cast<double>(m) + std::log2(static_cast<double>(l));
    rounding.see(lse_exact(m, l), static_cast<float>(sum * std::numbers::ln2));
  }
  EXPECT_LE(rounding.others, 1);
  EXPECT_EQ(lse_exact(-kInf, 0), kInf);
  EXPECT_EQ(lse_exact(3, kInf), kInf);
}

}  // namespace
}  // namespace mla
