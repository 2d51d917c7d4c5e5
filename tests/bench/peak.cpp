#include "tests/bench/peak.h"

#include "tests/bench/peak_loop.h"

namespace mla::bench {

double peak_portable_fp32() {
  using Vector [[gnu::vector_size(16)]] = float;
  Vector sums[16] = {};
  Vector factor = {1, 1, 1, 1};
  float result = 0;
  const double gflops = gflops_of(8, [&] {
#pragma GCC unroll 16
    for (Vector& sum : sums) sum = sum * factor + factor;
  });
  for (const Vector& sum : sums) result += sum[0];
  // A result that could be anything keeps the compiler from leaving the loop out.
  return result < 0 ? 0 : gflops;
}

}  // namespace mla::bench
