#pragma once

#include <ctime>

namespace mla::bench {

/// CPU time of this thread so far: unlike the wall clock it does not count what others do.
[[gnu::always_inline]] inline double cpu_seconds() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

/// GFLOP/s of `step`, which does 16 independent operations of `flops` each: the best of five.
template <class Step>
[[gnu::always_inline]] inline double gflops_of(double flops, Step step) {
  constexpr int kSteps = 4'000'000;
  double best = 0;
  for (int run = 0; run < 5; ++run) {
    const double begin = cpu_seconds();
    for (int i = 0; i < kSteps; ++i) step();
    const double gflops = 16.0 * kSteps * flops / (cpu_seconds() - begin) * 1e-9;
    best = gflops > best ? gflops : best;
  }
  return best;
}

}  // namespace mla::bench
