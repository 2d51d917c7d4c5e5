#include "launch/bench/softmax.h"

#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include <gtest/gtest.h>

#include "core/dtype.h"

namespace mla::launch::bench {
namespace {

constexpr float kScale = 0.7F;

std::vector<float> random_scores(std::int64_t count) {
  std::mt19937 random(1);
  std::normal_distribution<float> normal(0, 20);
  std::vector<float> scores(count);
  for (float& s : scores) s = normal(random);
  return scores;
}

TEST(SoftmaxWeights, ArePowersOfTwoBelowTheMaximum) {
  const std::vector<float> scores = random_scores(1024);
  std::vector<float> weights = scores;
  std::vector<std::uint16_t> halves(scores.size());
  std::vector<float> scratch = scores;
  const SoftmaxSums sums = softmax_weights(weights.data(), 1024, kScale, nullptr);
  softmax_weights(scratch.data(), 1024, kScale, halves.data());
  double sum = 0;
  for (std::size_t i = 0; i < scores.size(); ++i) {
    const double expected = std::exp2(kScale * (static_cast<double>(scores[i]) - sums.max));
    EXPECT_LE(scores[i], sums.max);
    EXPECT_NEAR(weights[i], expected, 1e-5 * expected + 1e-37);
    EXPECT_EQ(halves[i], to_bf16(weights[i]).bits);
    sum += expected;
  }
  EXPECT_NEAR(sums.sum, sum, 1e-5 * sum);
}

TEST(SoftmaxWeights, OfMaskedKeysAreNothing) {
  std::vector<float> scores = random_scores(32);
  for (int i = 7; i < 32; ++i) scores[i] = -std::numeric_limits<float>::infinity();
  softmax_weights(scores.data(), 32, kScale, nullptr);
  for (int i = 7; i < 32; ++i) EXPECT_LE(scores[i], 0x1p-126F);
}

}  // namespace
}  // namespace mla::launch::bench
