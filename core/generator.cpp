#include "core/generator.h"

#include <algorithm>
#include <array>
#include <bit>

#include "core/random_stream.h"

namespace mla {
namespace {

static_assert(std::endian::native == std::endian::little, "the words below are cut as such");

// One 64-bit word makes four elements. Blocks of words keep the two loops apart, of which only the
// conversion is fast with vectors.
constexpr std::int64_t kPerWord = 4;
constexpr std::int64_t kBlockWords = 64;
constexpr std::int64_t kBlockElements = kBlockWords * kPerWord;

using Block = std::array<std::int16_t, kBlockElements>;

/// The block of words that begins with word `first_word`.
Block random_block(RandomStream stream, std::int64_t first_word) {
  std::array<std::uint64_t, kBlockWords> words;
  for (std::int64_t i = 0; i < kBlockWords; ++i) {
    words[i] = stream[static_cast<std::uint64_t>(first_word + i)];
  }
  return std::bit_cast<Block>(words);
}

/// `convert` makes an element, or its bit pattern.
template <class Convert, class T>
void generate(RandomStream stream, std::int64_t first, float scale, Convert convert,
              std::span<T> out) {
  while (!out.empty()) {
    const Block block = random_block(stream, first / kPerWord);
    std::array<T, kBlockElements> converted;
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

RandomStream stream_of(std::uint64_t seed, GeneratedTensor tensor, std::uint64_t block) {
  return {seed, static_cast<std::uint64_t>(tensor), block};
}

/// e4m3 with an exponent field of 4 to 7, from the low 6 bits of a random integer.
std::uint8_t fp8_of(float random) {
  const auto bits = static_cast<std::uint32_t>(static_cast<std::int32_t>(random));
  return static_cast<std::uint8_t>((bits & 0x20u) << 2 | 0x20u | (bits & 0x1fu));
}

void generate_as(WeightType type, RandomStream stream, std::int64_t first, std::int64_t count,
                 float bound, void* out) {
  const auto into = [&]<class T>(T* begin, float scale, auto convert) {
    generate(stream, first, scale, convert, std::span(begin, static_cast<std::size_t>(count)));
  };
  const float scale = 0x1p-15f * bound;
  switch (type) {
    case WeightType::kFp32:
      return into(static_cast<float*>(out), scale, [](float x) { return x; });
    case WeightType::kBf16:
      return into(static_cast<std::uint16_t*>(out), scale, [](float x) { return to_bf16(x).bits; });
    case WeightType::kFp16:
      return into(static_cast<std::uint16_t*>(out), scale, [](float x) { return to_fp16(x).bits; });
    case WeightType::kFp8E4m3:
      return into(static_cast<std::uint8_t*>(out), 1.0f, fp8_of);
  }
}

}  // namespace

void generate_elements(std::uint64_t seed, GeneratedTensor tensor, std::int64_t block,
                       std::int64_t first, DType dtype, std::span<std::uint16_t> out) {
  const RandomStream stream = stream_of(seed, tensor, static_cast<std::uint64_t>(block));
  const float bound = tensor == GeneratedTensor::kKvCache ? 0.25f : 1.0f;
  const WeightType type = dtype == DType::kFp16 ? WeightType::kFp16 : WeightType::kBf16;
  generate_as(type, stream, first, std::ssize(out), bound, out.data());
}

void generate_weights(std::uint64_t seed, std::uint64_t tensor, std::int64_t first,
                      std::int64_t count, float bound, WeightType type, void* out) {
  generate_as(type, stream_of(seed, GeneratedTensor::kWeights, tensor), first, count, bound, out);
}

}  // namespace mla
