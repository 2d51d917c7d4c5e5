#include "core/generator.h"

namespace mla {
namespace {

constexpr std::uint64_t mix(std::uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

constexpr std::uint64_t kGolden = 0x9e3779b97f4a7c15u;

}  // namespace

void generate_elements(std::uint64_t seed, GeneratedTensor tensor, std::int64_t block,
                       std::int64_t first, DType dtype, std::span<std::uint16_t> out) {
  const std::uint64_t key = mix(mix(seed + kGolden * static_cast<std::uint64_t>(tensor)) +
                                kGolden * static_cast<std::uint64_t>(block));
  // One 64-bit word makes four elements; `first` may lie inside a word.
  constexpr std::int64_t kPerWord = 4;
  const auto size = static_cast<std::int64_t>(out.size());
  for (std::int64_t i = 0; i < size;) {
    const std::int64_t element = first + i;
    const std::uint64_t word =
        mix(key + kGolden * (static_cast<std::uint64_t>(element / kPerWord) + 1));
    for (std::int64_t lane = element % kPerWord; lane < kPerWord && i < size; ++lane, ++i) {
      const auto bits = static_cast<std::int16_t>(word >> (16 * lane));
      const float value = static_cast<float>(bits) * 0x1p-15f;
      out[i] = dtype == DType::kFp16 ? to_fp16(value).bits : to_bf16(value).bits;
    }
  }
}

}  // namespace mla
