#include "kernels/reference/compare.h"

#include <cmath>
#include <limits>
#include <vector>

#include <gtest/gtest.h>

namespace mla::kernels {
namespace {

constexpr double kInf = std::numeric_limits<double>::infinity();
constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

Comparison compare_out(std::vector<float> out, std::vector<double> reference) {
  const float lse = 1;
  const double ref_lse = 1;
  return compare(out, {&lse, 1}, reference, {&ref_lse, 1});
}

Comparison compare_lse(double lse, double reference) {
  const float out = 1;
  const double ref_out = 1;
  const auto lse_float = static_cast<float>(lse);
  return compare({&out, 1}, {&lse_float, 1}, {&ref_out, 1}, {&reference, 1});
}

TEST(Compare, AcceptsSmallAbsoluteErrors) {
  EXPECT_TRUE(compare_out({1, 0.0007F}, {1, 0}).pass);
  EXPECT_FALSE(compare_out({1, 0.0009F}, {1, 0}).pass);
}

TEST(Compare, AcceptsSmallRelativeErrors) {
  std::vector<float> out(10000, 1);
  const std::vector<double> reference(10000, 1);
  out[3] = 1.015F;
  EXPECT_TRUE(compare_out(out, reference).pass);
  out[3] = 1.016F;
  const Comparison worse = compare_out(out, reference);
  EXPECT_FALSE(worse.pass);
  EXPECT_EQ(worse.mismatches, 1);
  EXPECT_EQ(worse.first_mismatch, 3);
}

TEST(Compare, RejectsManySmallErrorsByTheCosine) {
  const Comparison comparison = compare_out({1.01F, 0.99F, 1.01F, 0.99F}, {1, 1, 1, 1});
  EXPECT_EQ(comparison.mismatches, 0);
  EXPECT_FALSE(comparison.pass);
}

TEST(Compare, WantsInfinitiesAndNanInTheSamePlaces) {
  EXPECT_TRUE(compare_lse(kInf, kInf).pass);
  EXPECT_FALSE(compare_lse(-kInf, kInf).pass);
  EXPECT_FALSE(compare_lse(1, kInf).pass);
  EXPECT_FALSE(compare_lse(kInf, 1).pass);
  EXPECT_TRUE(compare_lse(kNan, kNan).pass);
  EXPECT_FALSE(compare_lse(kNan, 1).pass);
  EXPECT_FALSE(compare_lse(1, kNan).pass);
}

TEST(Compare, HoldsLseToItsOwnTolerance) {
  EXPECT_TRUE(compare_lse(10.001, 10).pass);
  EXPECT_FALSE(compare_lse(10.002, 10).pass);
}

TEST(Compare, RejectsDifferentSizes) {
  EXPECT_FALSE(compare_out({1, 2}, {1}).pass);
}

}  // namespace
}  // namespace mla::kernels
