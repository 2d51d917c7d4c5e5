#pragma once

#include <cstdint>

#include "core/range.h"

// How loops are cut into register tiles.

namespace mla::kernels::cpu {

/// Calls f(begin, size) for the fewest runs of at most `most` that cover [0, count), as equal as
/// can be: a last tile of few sums could not hide the latency of their instructions.
template <class F>
[[gnu::always_inline]] inline void deal(std::int64_t count, std::int64_t most, F&& f) {
  std::int64_t runs = ceil_div(count, most);
  for (std::int64_t begin = 0; begin < count; --runs) {
    const std::int64_t size = ceil_div(count - begin, runs);
    f(begin, size);
    begin += size;
  }
}

/// Calls f(begin, size, runs) for the same runs, those of one size at once: at most twice.
template <class F>
[[gnu::always_inline]] inline void deal_alike(std::int64_t count, std::int64_t most, F&& f) {
  if (count == 0) return;
  const std::int64_t runs = ceil_div(count, most);
  const std::int64_t size = ceil_div(count, runs);
  const std::int64_t smaller = size * runs - count;
  f(0, size, runs - smaller);
  if (smaller > 0) f(size * (runs - smaller), size - 1, smaller);
}

/// Calls f.operator()<n>() for an n of [1, kMost] that is known at run time only.
template <int kMost, class F>
[[gnu::always_inline]] inline void with_constant(std::int64_t n, F&& f) {
  if constexpr (kMost > 1) {
    if (n < kMost) return with_constant<kMost - 1>(n, f);
  }
  f.template operator()<kMost>();
}

}  // namespace mla::kernels::cpu
