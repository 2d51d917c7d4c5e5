#include "core/generator.h"

#include <vector>

#include <gtest/gtest.h>

namespace mla {
namespace {

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

}  // namespace
}  // namespace mla
