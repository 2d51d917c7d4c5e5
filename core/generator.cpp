#include "core/generator.h"

#include <algorithm>
#include <array>
#include <bit>

namespace mla {
namespace {

static_assert(std::endian::native == std::endian::little, "the words below are cut as such");

constexpr std::uint64_t mix(std::uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

constexpr std::uint64_t kGolden = 0x9e3779b97f4a7c15u;

// One 64-bit word makes four elements. Blocks of words keep the two loops apart, of which only the
// conversion is fast with vectors.
constexpr std::int64_t kPerWord = 4;
constexpr std::int64_t kBlockWords = 64;
constexpr std::int64_t kBlockElements = kBlockWords * kPerWord;

using Block = std::array<std::int16_t, kBlockElements>;

/// The block of words that begins with word `first_word` of the stream `key`.
Block random_block(std::uint64_t key, std::int64_t first_word) {
  std::array<std::uint64_t, kBlockWords> words;
  for (std::int64_t i = 0; i < kBlockWords; ++i) {
    words[i] = mix(key + kGolden * (static_cast<std::uint64_t>(first_word + i) + 1));
  }
  return std::bit_cast<Block>(words);
}

/// `convert` makes the bit pattern of an element.
template <class Convert>
void generate(std::uint64_t key, std::int64_t first, float scale, Convert convert,
              std::span<std::uint16_t> out) {
  while (!out.empty()) {
    const Block block = random_block(key, first / kPerWord);
    std::array<std::uint16_t, kBlockElements> converted;
    for (std::int64_t i = 0; i < kBlockElements; ++i) {
      converted[i] = convert(static_cast<float>(block[i]) * scale);
    }
    const std::int64_t skipped = first % kPerWord;  // `first` may lie inside a word
    const std::int64_t count =
        std::min(kBlockElements - skipped, static_cast<std::int64_t>(out.size()));
    std::copy_n(converted.begin() + skipped, count, out.begin());
    first += count;
    out = out.subspan(static_cast<std::size_t>(count));
  }
}

}  // namespace

void generate_elements(std::uint64_t seed, GeneratedTensor tensor, std::int64_t block,
                       std::int64_t first, DType dtype, std::span<std::uint16_t> out) {
  const std::uint64_t key = mix(mix(seed + kGolden * static_cast<std::uint64_t>(tensor)) +
                                kGolden * static_cast<std::uint64_t>(block));
  const float scale = 0x1p-15f * (tensor == GeneratedTensor::kKvCache ? 0.25f : 1.0f);
  if (dtype == DType::kFp16) {
    generate(
        key, first, scale, [](float x) { return to_fp16(x).bits; }, out);
  } else {
    generate(
        key, first, scale, [](float x) { return to_bf16(x).bits; }, out);
  }
}

}  // namespace mla
