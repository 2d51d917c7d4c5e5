#pragma once

#include <immintrin.h>

// Pairs of bf16 elements, 16 to a vector. Included only by files compiled for AVX-512 and
// AVX512-BF16; forced inline, so that no copy of it can be linked into code for other CPUs.

namespace mla::kernels::avx512 {

/// (p0, p1), rounded to bf16, in every lane.
[[gnu::always_inline]] inline __m512i pair_up(__m512 p0, __m512 p1) {
  const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24,
                                         8, 23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
  const auto rounded = reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(p1, p0));
  return _mm512_permutexvar_epi16(order, rounded);
}

/// p less its bf16 rounding.
[[gnu::always_inline]] inline __m512 residual(__m512 p) {
  const auto rounded = reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(p));
  const __m512i bits = _mm512_slli_epi32(_mm512_cvtepu16_epi32(rounded), 16);
  return _mm512_sub_ps(p, _mm512_castsi512_ps(bits));
}

}  // namespace mla::kernels::avx512
