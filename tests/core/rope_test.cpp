#include "core/rope.h"

#include <array>
#include <cmath>

#include <gtest/gtest.h>

namespace mla {
namespace {

TEST(Rope, TurnsTheFirstPairByOneAndOthersSlower) {
  const std::vector<float> frequencies = default_inverse_frequencies(10000, 64);
  ASSERT_EQ(frequencies.size(), 32u);
  EXPECT_EQ(frequencies[0], 1);
  EXPECT_FLOAT_EQ(frequencies[16], 0.01F);
  for (std::size_t i = 1; i < frequencies.size(); ++i) {
    EXPECT_LT(frequencies[i], frequencies[i - 1]);
  }
}

TEST(Rope, YarnKeepsFastPairsAndSlowsTheOthers) {
  const std::vector<float> plain = default_inverse_frequencies(10000, 64);
  const std::vector<float> yarn =
      yarn_inverse_frequencies(10000, 64, {.factor = 40, .original_max_position = 4096});
  EXPECT_EQ(yarn[0], plain[0]);
  EXPECT_FLOAT_EQ(yarn[31], plain[31] / 40);
  for (std::size_t i = 0; i < plain.size(); ++i) {
    EXPECT_LE(yarn[i], plain[i]);
    EXPECT_GE(yarn[i], plain[i] / 40.001F);
  }
}

TEST(Rope, YarnWithEqualBetasIsAStep) {
  const YarnConfig kimi{
      .factor = 32, .original_max_position = 4096, .beta_fast = 1, .beta_slow = 1};
  const std::vector<float> plain = default_inverse_frequencies(50000, 64);
  const std::vector<float> yarn = yarn_inverse_frequencies(50000, 64, kimi);
  for (std::size_t i = 0; i < plain.size(); ++i) {
    EXPECT_TRUE(yarn[i] == plain[i] || std::abs(yarn[i] * 32 / plain[i] - 1) < 1e-6F) << i;
  }
}

TEST(Rope, MscaleOfNoScalingIsOne) {
  EXPECT_EQ(yarn_mscale(1, 0.707), 1);
  EXPECT_NEAR(yarn_mscale(40, 1), 1.3688879454113936, 1e-15);
  EXPECT_EQ(longrope_attention_factor(1, 32768), 1);
  EXPECT_NEAR(longrope_attention_factor(4, 32), std::sqrt(1.4), 1e-15);
}

TEST(Rope, ChoosesFrequenciesByTheLongestContext) {
  const std::array<double, 2> factors{1, 2};
  RopeConfig rope;
  rope.inv_freq = default_inverse_frequencies(100, 4);
  EXPECT_EQ(inverse_frequencies(rope, 1 << 20).data(), rope.inv_freq.data());
  rope.long_inv_freq = longrope_inverse_frequencies(100, 4, factors);
  rope.long_after = 32;
  EXPECT_EQ(inverse_frequencies(rope, 32)[1], 0.1F);
  EXPECT_EQ(inverse_frequencies(rope, 33)[1], 0.05F);
}

TEST(Rope, ScalesQueriesByTheirPeriod) {
  AttentionConfig attention;
  EXPECT_EQ(position_scale(attention, 1 << 30), 1);
  attention.position_scale_beta = 0.1F;
  attention.position_scale_period = 8192;
  EXPECT_EQ(position_scale(attention, 8191), 1);
  EXPECT_FLOAT_EQ(position_scale(attention, 8192), 1 + 0.1F * std::log(2.0F));
  EXPECT_FLOAT_EQ(position_scale(attention, 8192 * 127), 1 + 0.1F * std::log(128.0F));
}

}  // namespace
}  // namespace mla
