#include "core/generator.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

#include <gtest/gtest.h>
#ifdef MLA_HAVE_RAPIDCHECK
#include <rapidcheck.h>
#include <rapidcheck/gtest.h>
#endif

namespace mla {
namespace {

constexpr auto kCache = GeneratedTensor::kKvCache;
constexpr auto kQuery = GeneratedTensor::kQuery;

std::vector<std::uint16_t> generated(std::uint64_t seed, GeneratedTensor tensor, std::int64_t block,
                                     std::int64_t first, std::int64_t count,
                                     DType dtype = DType::kBf16) {
  std::vector<std::uint16_t> out(count);
  generate_elements(seed, tensor, block, first, dtype, out);
  return out;
}

// Computed apart from this code. Batches name generated tensors by seed alone, so these values are
// part of the file format.
TEST(Generator, MakesTheValuesOfTheFileFormat) {
  using Bits = std::vector<std::uint16_t>;
  EXPECT_EQ(generated(0, kCache, 0, 0, 6), (Bits{0x3c3e, 0x3d51, 0xbe4a, 0x3e2d, 0x3e63, 0x3e10}));
  EXPECT_EQ(generated(42, kCache, 7, 0, 6), (Bits{0x3e4c, 0xbdee, 0x3e71, 0x3e63, 0xbded, 0x3e0f}));
  EXPECT_EQ(generated(42, kQuery, 7, 0, 6, DType::kFp16),
            (Bits{0xbb8c, 0x3b64, 0x3020, 0x3aff, 0x37c3, 0x2740}));
  EXPECT_EQ(generated(~std::uint64_t{0}, kCache, 2147483646, 123456789, 6),
            (Bits{0xbdf9, 0x3cbd, 0xbd81, 0xbdb1, 0xbceb, 0xbe31}));
}

TEST(Generator, EveryPartIsTheSamePartOfTheWhole) {
  const std::vector<std::uint16_t> whole = generated(9, kCache, 3, 0, 64);
  for (std::int64_t first = 0; first <= 64; ++first) {
    for (std::int64_t end = first; end <= 64; ++end) {
      EXPECT_EQ(generated(9, kCache, 3, first, end - first),
                std::vector<std::uint16_t>(whole.begin() + first, whole.begin() + end));
    }
  }
}

TEST(Generator, MakesFp8WeightsOfModerateSize) {
  constexpr std::int64_t kCount = 1 << 16;
  std::vector<std::uint8_t> codes(kCount);
  generate_weights(3, 4, 0, kCount, 1, WeightType::kFp8E4m3, codes.data());
  double square_sum = 0;
  double sum = 0;
  for (const std::uint8_t code : codes) {
    const double x = std::ldexp(1 + (code & 7) / 8.0, (code >> 3 & 15) - 7);
    ASSERT_GE(x, 0.125);
    ASSERT_LE(x, 1.875);
    square_sum += x * x;
    sum += code < 128 ? x : -x;
  }
  EXPECT_NEAR(square_sum / kCount, 0.713, 0.01);
  EXPECT_NEAR(sum / kCount, 0, 0.02);
}

TEST(Generator, MakesTheSameWeightsInParts) {
  std::vector<float> whole(64);
  generate_weights(3, 4, 0, 64, 2, WeightType::kFp32, whole.data());
  std::vector<float> part(20);
  generate_weights(3, 4, 7, 20, 2, WeightType::kFp32, part.data());
  EXPECT_TRUE(std::equal(part.begin(), part.end(), whole.begin() + 7));
  for (const float x : whole) EXPECT_LE(std::abs(x), 2);
}

TEST(Generator, StreamsDiffer) {
  const std::vector<std::uint16_t> base = generated(1, kCache, 1, 0, 64);
  EXPECT_NE(base, generated(2, kCache, 1, 0, 64));
  EXPECT_NE(base, generated(1, kQuery, 1, 0, 64));
  EXPECT_NE(base, generated(1, kCache, 2, 0, 64));
  EXPECT_NE(base, generated(1, kCache, 1, 64, 64));
}

TEST(Generator, BothTypesRoundTheSameNumbers) {
  const std::vector<std::uint16_t> bf16 = generated(5, kCache, 0, 0, 4096);
  const std::vector<std::uint16_t> fp16 = generated(5, kCache, 0, 0, 4096, DType::kFp16);
  for (std::size_t i = 0; i < bf16.size(); ++i) {
    EXPECT_NEAR(to_float(Bf16{bf16[i]}), to_float(Fp16{fp16[i]}), 0x1p-8);
  }
}

TEST(Generator, SpreadsEvenlyOverTheRangeOfItsTensor) {
  constexpr std::int64_t kCount = 1 << 18;
  constexpr int kBins = 32;
  for (const GeneratedTensor tensor : {kCache, kQuery}) {
    std::array<int, kBins> histogram{};
    double sum = 0;
    double squares = 0;
    double neighbours = 0;
    double previous = 0;
    const double range = tensor == kCache ? 0.25 : 1;
    for (const std::uint16_t bits : generated(11, tensor, 0, 0, kCount, DType::kFp16)) {
      const double x = to_float(Fp16{bits}) / range;
      ASSERT_GE(x, -1);
      ASSERT_LE(x, 1);
      sum += x;
      squares += x * x;
      neighbours += x * previous;
      previous = x;
      ++histogram[std::min(kBins - 1, static_cast<int>((x + 1) / 2 * kBins))];
    }
    // Five standard deviations of each estimate.
    const double root = std::sqrt(static_cast<double>(kCount));
    EXPECT_NEAR(sum / kCount, 0, 5 * std::sqrt(1.0 / 3) / root);
    EXPECT_NEAR(squares / kCount, 1.0 / 3, 5 * std::sqrt(4.0 / 45) / root);
    EXPECT_NEAR(neighbours / kCount, 0, 5 * (1.0 / 3) / root);
    const double expected = static_cast<double>(kCount) / kBins;
    for (const int count : histogram) EXPECT_NEAR(count, expected, 5 * std::sqrt(expected));
  }
}

TEST(Generator, NeighbouringBlocksAreUnrelated) {
  constexpr std::int64_t kCount = 1 << 16;
  const std::vector<std::uint16_t> a = generated(3, kCache, 0, 0, kCount, DType::kFp16);
  const std::vector<std::uint16_t> b = generated(3, kCache, 1, 0, kCount, DType::kFp16);
  double product = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    product += 16.0 * to_float(Fp16{a[i]}) * to_float(Fp16{b[i]});
  }
  EXPECT_NEAR(product / kCount, 0, 5 * (1.0 / 3) / std::sqrt(static_cast<double>(kCount)));
}

#ifdef MLA_HAVE_RAPIDCHECK
RC_GTEST_PROP(Generator, ElementsDependOnTheirPlaceAlone, ()) {
  const auto seed = *rc::gen::arbitrary<std::uint64_t>();
  const auto block = *rc::gen::inRange<std::int64_t>(0, std::int64_t{1} << 31);
  const auto first = *rc::gen::inRange<std::int64_t>(0, std::int64_t{1} << 42);
  const auto count = *rc::gen::inRange<std::int64_t>(1, 50);
  const auto at = *rc::gen::inRange<std::int64_t>(0, count);
  RC_ASSERT(generated(seed, kQuery, block, first, count)[at] ==
            generated(seed, kQuery, block, first + at, 1)[0]);
}
#endif

}  // namespace
}  // namespace mla
