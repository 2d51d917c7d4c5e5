#pragma once

#include <cstdint>

#include <immintrin.h>

#include "core/dtype.h"

namespace mla::kernels::avx512 {

/// Vectors of 16 floats, for the templates of kernels/cpu. Included only by files compiled for
/// AVX-512 F, BW, DQ and VL.
struct Simd {
  using Vector = __m512;
  using Mask = __mmask16;
  static constexpr int kLanes = 16;

  [[gnu::always_inline]] static Vector load(const float* from) { return _mm512_loadu_ps(from); }
  [[gnu::always_inline]] static void store(float* to, Vector v) { _mm512_storeu_ps(to, v); }
  [[gnu::always_inline]] static Vector broadcast(float x) { return _mm512_set1_ps(x); }
  [[gnu::always_inline]] static Vector fma(Vector a, Vector b, Vector c) {
    return _mm512_fmadd_ps(a, b, c);
  }
  /// b where either is NaN.
  [[gnu::always_inline]] static Vector max(Vector a, Vector b) { return _mm512_max_ps(a, b); }
  [[gnu::always_inline]] static Mask less(Vector a, Vector b) {
    return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ);
  }
  [[gnu::always_inline]] static Mask equal(Vector a, Vector b) {
    return _mm512_cmp_ps_mask(a, b, _CMP_EQ_OQ);
  }
  [[gnu::always_inline]] static Vector select(Mask mask, Vector yes, Vector no) {
    return _mm512_mask_mov_ps(no, mask, yes);
  }
  [[gnu::always_inline]] static Vector round(Vector x) {
    return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  }
  /// p * 2^n for whole n of [-126, 0]; anything for others.
  [[gnu::always_inline]] static Vector scale(Vector p, Vector n) { return _mm512_scalef_ps(p, n); }
  [[gnu::always_inline]] static Vector from_int(const std::int32_t* from) {
    return _mm512_cvtepi32_ps(_mm512_loadu_si512(from));
  }
  template <DType kDType>
  [[gnu::always_inline]] static Vector widen(const std::uint16_t* from) {
    if constexpr (kDType == DType::kFp32) return load(reinterpret_cast<const float*>(from));
    const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
    if constexpr (kDType == DType::kFp16) return _mm512_cvtph_ps(bits);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
  }
  [[gnu::always_inline]] static Vector widen_e4m3(const std::uint8_t* from) {
    const __m256i words =
        _mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
    // As fp16, with one more bit of exponent, a number is 2^8 too small.
    const __m256i halves = _mm256_and_si256(_mm256_srai_epi16(_mm256_slli_epi16(words, 8), 1),
                                            _mm256_set1_epi16(-0x4001));
    const __mmask16 nan = _mm256_cmpeq_epi16_mask(_mm256_and_si256(words, _mm256_set1_epi16(0x7f)),
                                                  _mm256_set1_epi16(0x7f));
    return _mm512_cvtph_ps(_mm256_mask_set1_epi16(halves, nan, 0x7e00)) * _mm512_set1_ps(256);
  }
  /// sums[i] = the sum of the lanes of v[i], in a fixed tree.
  [[gnu::always_inline]] static void add_lanes(const Vector (&v)[4], float (&sums)[4]) {
    const Vector v01 = _mm512_unpacklo_ps(v[0], v[1]) + _mm512_unpackhi_ps(v[0], v[1]);
    const Vector v23 = _mm512_unpacklo_ps(v[2], v[3]) + _mm512_unpackhi_ps(v[2], v[3]);
    const Vector quarters = _mm512_shuffle_ps(v01, v23, 0x44) + _mm512_shuffle_ps(v01, v23, 0xee);
    const __m256 halves = _mm512_castps512_ps256(quarters) + _mm512_extractf32x8_ps(quarters, 1);
    _mm_storeu_ps(sums, _mm256_castps256_ps128(halves) + _mm256_extractf128_ps(halves, 1));
  }
};

}  // namespace mla::kernels::avx512
