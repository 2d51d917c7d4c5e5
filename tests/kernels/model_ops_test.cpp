#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>
#include <vector>

#include <gtest/gtest.h>

#include "kernels/activation.h"
#include "kernels/rotary.h"
#include "kernels/routing.h"
#include "kernels/weight_rows.h"

namespace mla::kernels {
namespace {

std::vector<float> random_floats(std::size_t n, unsigned seed, float spread = 1) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0, spread);
  std::vector<float> result(n);
  for (float& x : result) x = normal(random);
  return result;
}

TEST(Rotary, AnglesAreThoseOfTheCLibraryToALastPlace) {
  const std::vector<float> inv_freq{1.0F, 0.31F, 0.01F, 1e-4F, 0.0F};
  for (const std::int64_t position : {0, 1, 2, 3, 710, 4095, 163839, 1000000}) {
    float cosines[5];
    float sines[5];
    rotary_angles(inv_freq, 1, position, cosines, sines);
    for (std::size_t i = 0; i < inv_freq.size(); ++i) {
      const auto angle = static_cast<double>(static_cast<float>(position) * inv_freq[i]);
      EXPECT_NEAR(cosines[i], std::cos(angle), 1.2e-7) << position << " * " << inv_freq[i];
      EXPECT_NEAR(sines[i], std::sin(angle), 1.2e-7) << position << " * " << inv_freq[i];
    }
  }
}

TEST(Rotary, TurnsNeighboursOrHalves) {
  const float cosines[] = {0, 1};
  const float sines[] = {1, 0};
  float neighbours[] = {1, 2, 3, 4};
  rotate(cosines, sines, true, neighbours);
  EXPECT_EQ(std::vector<float>(neighbours, neighbours + 4), (std::vector<float>{-2, 1, 3, 4}));
  float halves[] = {1, 2, 3, 4};
  rotate(cosines, sines, false, halves);
  EXPECT_EQ(std::vector<float>(halves, halves + 4), (std::vector<float>{-3, 2, 1, 4}));
}

TEST(Activation, NormsAndActivatesAsFormulasSay) {
  for (const std::size_t n : {1U, 15U, 16U, 33U, 1000U}) {
    const auto x = random_floats(n, 1);
    const auto weight = random_floats(n, 2);
    std::vector<float> y(n);
    rms_norm(x, weight.data(), 1e-6F, y.data());
    double squares = 0;
    for (const float v : x) squares += static_cast<double>(v) * static_cast<double>(v);
    const double scale = 1 / std::sqrt(squares / static_cast<double>(n) + 1e-6);
    for (std::size_t i = 0; i < n; ++i) {
      EXPECT_NEAR(y[i], static_cast<double>(weight[i]) * static_cast<double>(x[i]) * scale, 1e-5);
    }
    silu_multiply(x, weight.data(), y.data());
    for (std::size_t i = 0; i < n; ++i) {
      const auto v = static_cast<double>(x[i]);
      EXPECT_NEAR(y[i], v / (1 + std::exp(-v)) * static_cast<double>(weight[i]), 1e-6);
    }
  }
  const float extreme[] = {-1e30F, 1e30F, -200, 200, -0.0F};
  const float ones[] = {1, 1, 1, 1, 1};
  float y[5];
  silu_multiply(extreme, ones, y);
  EXPECT_EQ(std::vector<float>(y, y + 5), (std::vector<float>{0, 1e30F, 0, 200, 0}));
}

struct Choice {
  std::vector<std::int32_t> experts;
  std::vector<float> weights;
};

Choice choose(const MoeConfig& moe, const std::vector<float>& logits,
              const std::vector<float>& bias = {}) {
  Choice choice;
  choice.experts.resize(static_cast<std::size_t>(moe.top_k));
  choice.weights.resize(static_cast<std::size_t>(moe.top_k));
  std::vector<float> scratch(static_cast<std::size_t>(routing_scratch_floats(moe)));
  choose_experts(moe, logits, bias, scratch, choice.experts.data(), choice.weights.data());
  return choice;
}

TEST(Routing, WeighsByScoresWithoutTheBiasThatSelected) {
  const MoeConfig moe{.num_experts = 4,
                      .top_k = 2,
                      .scoring = ExpertScoring::kSigmoid,
                      .normalise = true,
                      .routed_scaling_factor = 2};
  const Choice choice = choose(moe, {0, 5, 0, 5}, {10, 0, 0, 0.1F});
  EXPECT_EQ(choice.experts, (std::vector<std::int32_t>{0, 3}));
  const float high = 1 / (1 + std::exp(-5.0F));
  EXPECT_NEAR(choice.weights[0], 2 * 0.5F / (0.5F + high), 1e-6);
  EXPECT_NEAR(choice.weights[1], 2 * high / (0.5F + high), 1e-6);
}

TEST(Routing, KeepsToTheBestGroups) {
  MoeConfig moe{.num_experts = 6,
                .top_k = 2,
                .num_groups = 3,
                .topk_groups = 1,
                .group_score = GroupScore::kMax,
                .scoring = ExpertScoring::kSoftmax};
  EXPECT_EQ(choose(moe, {0, 9, 8, 8, 1, 1}).experts, (std::vector<std::int32_t>{0, 1}));
  moe.group_score = GroupScore::kSumOfTopTwo;
  moe.scoring = ExpertScoring::kSigmoid;
  EXPECT_EQ(choose(moe, {-9, 3, 2, 2, 1, 1}).experts, (std::vector<std::int32_t>{2, 3}));
}

TEST(Routing, PrefersTheLowerOfEqualExperts) {
  const MoeConfig moe{.num_experts = 8,
                      .top_k = 3,
                      .num_groups = 4,
                      .topk_groups = 2,
                      .scoring = ExpertScoring::kSoftmax};
  EXPECT_EQ(choose(moe, std::vector<float>(8, 1)).experts, (std::vector<std::int32_t>{0, 1, 2}));
}

TEST(Routing, ChoosesDifferentExpertsWhateverTheLogits) {
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  std::mt19937 random(3);
  for (const ExpertScoring scoring : {ExpertScoring::kSoftmax, ExpertScoring::kSigmoid}) {
    const MoeConfig moe{.num_experts = 8,
                        .num_identity_experts = 4,
                        .top_k = 5,
                        .num_groups = 4,
                        .topk_groups = 1,
                        .scoring = scoring};
    for (int round = 0; round < 200; ++round) {
      std::vector<float> logits(12);
      for (float& x : logits) {
        const float special[] = {kNan, kInfinity, -kInfinity, 0, 1, -1};
        x = special[random() % 6];
      }
      const Choice choice = choose(moe, logits);
      for (std::size_t k = 0; k < choice.experts.size(); ++k) {
        EXPECT_GE(choice.experts[k], k == 0 ? 0 : choice.experts[k - 1] + 1);
        EXPECT_LT(choice.experts[k], 12);
      }
    }
  }
}

TEST(WeightRows, AreWidenedWithTheScalesOfTheirBlocks) {
  const std::int64_t rows = 130;
  const std::int64_t cols = 200;
  std::vector<std::uint8_t> bits(static_cast<std::size_t>(rows * cols), 0x38);  // 1.0
  bits[0] = 0x01;                                                               // 2^-9
  bits[1] = 0xfe;                                                               // -448
  const float scales[] = {2, 3, 5, 7};
  const MatrixView matrix{.data = bits.data(),
                          .type = WeightType::kFp8E4m3,
                          .rows = rows,
                          .cols = cols,
                          .scales = scales,
                          .scale_cols = 2};
  std::vector<float> row(cols);
  widen_row(matrix, 0, row.data());
  EXPECT_EQ(row[0], 2 * 0x1p-9F);
  EXPECT_EQ(row[1], -896);
  EXPECT_EQ(row[127], 2);
  EXPECT_EQ(row[128], 3);
  widen_row(matrix, 129, row.data());
  EXPECT_EQ(row[0], 5);
  EXPECT_EQ(row[199], 7);

  std::vector<float> transposed(2 * cols);
  transpose_rows(matrix, {127, 129}, row.data(), transposed.data());
  EXPECT_EQ(transposed[0], 2);
  EXPECT_EQ(transposed[1], 5);
  EXPECT_EQ(transposed[2 * 128], 3);
  EXPECT_EQ(transposed[2 * 128 + 1], 7);
}

TEST(WeightRows, OfSixteenBitsAreTransposedAsTheyAre) {
  std::vector<std::uint16_t> bits(15);
  std::iota(bits.begin(), bits.end(), std::uint16_t{0x3f80});
  const MatrixView matrix{.data = bits.data(), .type = WeightType::kBf16, .rows = 5, .cols = 3};
  std::vector<std::uint16_t> transposed(6);
  float scratch[3];
  transpose_rows(matrix, {2, 4}, scratch, transposed.data());
  EXPECT_EQ(transposed,
            (std::vector<std::uint16_t>{0x3f86, 0x3f89, 0x3f87, 0x3f8a, 0x3f88, 0x3f8b}));
}

}  // namespace
}  // namespace mla::kernels
