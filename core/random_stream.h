#pragma once

#include <cstdint>

#include "core/host_device.h"

namespace mla {

/// 2^64 over the golden ratio: what SplitMix64 counts in.
inline constexpr std::uint64_t kGoldenStep = 0x9e3779b97f4a7c15u;

/// The mixing function of SplitMix64 (Steele, Lea, Flood 2014): a bijection.
MLA_HOST_DEVICE constexpr std::uint64_t split_mix(std::uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

/// 64-bit random numbers, each a function of the stream's key and its number: counter-based as in
/// Salmon et al. (2011). Those of key k are SplitMix64's for the seed k.
class RandomStream {
 public:
  constexpr explicit RandomStream(std::uint64_t key) : key_(key) {}
  /// Stream (a, b) of `seed`.
  constexpr RandomStream(std::uint64_t seed, std::uint64_t a, std::uint64_t b)
      : key_(split_mix(split_mix(seed + kGoldenStep * a) + kGoldenStep * b)) {}

  constexpr std::uint64_t operator[](std::uint64_t i) const {
    return split_mix(key_ + kGoldenStep * (i + 1));
  }

 private:
  std::uint64_t key_;
};

}  // namespace mla
