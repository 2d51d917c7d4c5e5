#pragma once

#include <cstdint>

#include "core/dtype.h"
#include "core/host_device.h"
#include "core/random_stream.h"

namespace mla::test {

/// In both 16-bit element types.
inline constexpr std::uint16_t kNanBits = 0x7fff;

/// A finite number as a bit pattern of `dtype`, one of 16 bits.
MLA_HOST_DEVICE constexpr std::uint16_t to_bits(DType dtype, double value) {
  const auto x = static_cast<float>(value);
  return dtype == DType::kBf16 ? to_bf16(x).bits : to_fp16(x).bits;
}

/// Roughly normal numbers, fast: sums of four uniform ones. The same on the host and on a GPU.
class RandomRow {
 public:
  /// @param magnitude standard deviation
  MLA_HOST_DEVICE constexpr RandomRow(std::uint64_t seed, DType dtype, double magnitude)
      : key_(split_mix(seed)), dtype_(dtype), unit_(magnitude / kStandardDeviation) {}

  MLA_HOST_DEVICE constexpr std::uint16_t operator[](std::int64_t i) const {
    const std::uint64_t x = split_mix(key_ + static_cast<std::uint64_t>(i) * kGoldenStep);
    const auto sum = static_cast<std::int64_t>((x & 0xffff) + (x >> 16 & 0xffff) +
                                               (x >> 32 & 0xffff) + (x >> 48)) -
                     131070;
    return to_bits(dtype_, static_cast<double>(sum) * unit_);
  }

 private:
  static constexpr double kStandardDeviation = 37837.2;  // of a sum of four 16-bit uniform numbers

  std::uint64_t key_;
  DType dtype_;
  double unit_;
};

/// What a random problem's rows are made of: those of the cache, and the queries.
struct RandomRows {
  std::uint64_t seed = 1;
  DType dtype = DType::kBf16;
  double q_magnitude = 1;
  double kv_magnitude = 0.1;

  /// @param sequence request * h_kv + kv_head
  MLA_HOST_DEVICE constexpr RandomRow kv(std::int64_t sequence, std::int64_t token) const {
    const auto place = static_cast<std::uint64_t>(sequence * 10000019 + token);
    return {seed * 1000003u + place, dtype, kv_magnitude};
  }
  /// @param row query * h_q + head
  MLA_HOST_DEVICE constexpr RandomRow q(std::int64_t row) const {
    return {~seed - static_cast<std::uint64_t>(row), dtype, q_magnitude};
  }
};

}  // namespace mla::test
