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

std::uint64_t mix(std::uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

/// Element `index` by the definition, one at a time.
std::uint16_t element(std::uint64_t seed, GeneratedTensor tensor, std::int64_t block,
                      std::int64_t index, DType dtype) {
  constexpr std::uint64_t kGolden = 0x9e3779b97f4a7c15u;
  const std::uint64_t key = mix(mix(seed + kGolden * static_cast<std::uint64_t>(tensor)) +
                                kGolden * static_cast<std::uint64_t>(block));
  const std::uint64_t word = mix(key + kGolden * (static_cast<std::uint64_t>(index / 4) + 1));
  const auto bits = static_cast<std::int16_t>(word >> (16 * (index % 4)));
  const float value = static_cast<float>(bits) * 0x1p-15f;
  return dtype == DType::kFp16 ? to_fp16(value).bits : to_bf16(value).bits;
}

void expect_definition(std::int64_t first, std::int64_t size, DType dtype) {
  std::vector<std::uint16_t> values(size);
  generate_elements(9, GeneratedTensor::kQuery, 3, first, dtype, values);
  for (std::int64_t i = 0; i < size; ++i) {
    ASSERT_EQ(values[i], element(9, GeneratedTensor::kQuery, 3, first + i, dtype))
        << name_of(dtype) << " " << first << " + " << i;
  }
}

TEST(Generator, GivesTheValuesOfItsDefinitionFromAnyPlaceOn) {
  for (const DType dtype : {DType::kBf16, DType::kFp16}) {
    for (const std::int64_t first : {0, 1, 3, 4, 254, 1001}) {
      for (const std::int64_t size : {0, 1, 5, 255, 256, 257, 1000}) {
        expect_definition(first, size, dtype);
      }
    }
  }
}

TEST(Generator, RoundsEveryValueAsDtypeSays) {
  expect_definition(0, 1'000'000, DType::kFp16);  // most of the 65536 values, 0 and +-2^-15 too
  expect_definition(0, 1'000'000, DType::kBf16);
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
