#include <immintrin.h>

#include "tests/bench/peak.h"
#include "tests/bench/peak_loop.h"

namespace mla::bench {
namespace {

/// Runs `op` on 16 accumulators that the compiler must take for changing and needed.
template <class Op>
[[gnu::always_inline]] inline double peak_of(double flops, Op op) {
  __m512 s0, s1, s2, s3, s4, s5, s6, s7, s8, s9, s10, s11, s12, s13, s14, s15;
  s0 = s1 = s2 = s3 = s4 = s5 = s6 = s7 = _mm512_setzero_ps();
  s8 = s9 = s10 = s11 = s12 = s13 = s14 = s15 = _mm512_setzero_ps();
  return gflops_of(flops, [&] {
    s0 = op(s0), s1 = op(s1), s2 = op(s2), s3 = op(s3);
    s4 = op(s4), s5 = op(s5), s6 = op(s6), s7 = op(s7);
    s8 = op(s8), s9 = op(s9), s10 = op(s10), s11 = op(s11);
    s12 = op(s12), s13 = op(s13), s14 = op(s14), s15 = op(s15);
    asm volatile(""
                 : "+v"(s0), "+v"(s1), "+v"(s2), "+v"(s3), "+v"(s4), "+v"(s5), "+v"(s6), "+v"(s7));
    asm volatile(""
                 : "+v"(s8), "+v"(s9), "+v"(s10), "+v"(s11), "+v"(s12), "+v"(s13), "+v"(s14),
                   "+v"(s15));
  });
}

}  // namespace

double peak_avx512_fma() {
  const __m512 one = _mm512_set1_ps(1);
  return peak_of(32, [=](__m512 sum) { return _mm512_fmadd_ps(one, one, sum); });
}

double peak_avx512_bf16() {
  const auto ones = reinterpret_cast<__m512bh>(_mm512_set1_epi32(0x3f803f80));
  return peak_of(64, [=](__m512 sum) { return _mm512_dpbf16_ps(sum, ones, ones); });
}

}  // namespace mla::bench
