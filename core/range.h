#pragma once

#include <cstdint>

#include "core/host_device.h"

namespace mla {

/// Half-open range [begin, end).
struct Range {
  std::int64_t begin = 0;
  std::int64_t end = 0;

  MLA_HOST_DEVICE constexpr std::int64_t size() const { return end - begin; }
  MLA_HOST_DEVICE constexpr bool empty() const { return end <= begin; }
  friend constexpr bool operator==(Range, Range) = default;
};

/// Always part of its caller: objects with instruction sets of their own must not define it.
[[gnu::always_inline]] MLA_HOST_DEVICE constexpr std::int64_t ceil_div(std::int64_t numerator,
                                                                       std::int64_t denominator) {
  return (numerator + denominator - 1) / denominator;
}

[[gnu::always_inline]] MLA_HOST_DEVICE constexpr std::int64_t round_up(std::int64_t value,
                                                                       std::int64_t multiple) {
  return ceil_div(value, multiple) * multiple;
}

/// Part `i` of `n` nearly equal parts of [0, size); parts may be empty when n > size.
MLA_HOST_DEVICE constexpr Range even_part(std::int64_t size, std::int64_t n, std::int64_t i) {
  return {size * i / n, size * (i + 1) / n};
}

}  // namespace mla
