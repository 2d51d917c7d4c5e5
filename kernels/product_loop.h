#pragma once

#include <cstdint>

namespace mla::kernels {

/// `HostBackend::run_products` for an `op(sum, factor)` that turns one register of sums into the
/// next and does `flops` operations, in `kChains` independent chains: as many as fit the registers.
template <int kChains, class Sum, class Factor, class Op>
[[gnu::always_inline]] inline double product_loop(std::int64_t count, double flops, Sum zero,
                                                  Factor factor, Op op) {
  Sum memory[kChains];
#pragma GCC unroll 24
  for (Sum& sum : memory) sum = zero;
  // The compiler cannot know what it begins with, so it cannot leave any of it out.
  asm volatile("" : "+m"(factor), "+m"(memory));
  const Factor unknown = factor;
  Sum sums[kChains];
#pragma GCC unroll 24
  for (int i = 0; i < kChains; ++i) sums[i] = memory[i];
  const std::int64_t steps = count / kChains + 1;
  for (std::int64_t step = 0; step < steps; ++step) {
#pragma GCC unroll 24
    for (Sum& sum : sums) sum = op(sum, unknown);
  }
#pragma GCC unroll 24
  for (int i = 0; i < kChains; ++i) memory[i] = sums[i];
  asm volatile("" : : "m"(memory));
  return static_cast<double>(steps) * kChains * flops;
}

}  // namespace mla::kernels
