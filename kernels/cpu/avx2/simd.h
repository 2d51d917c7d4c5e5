#pragma once

#include <cstdint>

#include <immintrin.h>

#include "core/dtype.h"

namespace mla::kernels::avx2 {

/// Vectors of 8 floats, for the templates of kernels/cpu. Included only by files compiled for AVX2,
/// FMA and F16C.
struct Simd {
  using Vector = __m256;
  using Mask = __m256;
  static constexpr int kLanes = 8;

  [[gnu::always_inline]] static Vector load(const float* from) { return _mm256_loadu_ps(from); }
  [[gnu::always_inline]] static void store(float* to, Vector v) { _mm256_storeu_ps(to, v); }
  [[gnu::always_inline]] static Vector broadcast(float x) { return _mm256_set1_ps(x); }
  [[gnu::always_inline]] static Vector fma(Vector a, Vector b, Vector c) {
    return _mm256_fmadd_ps(a, b, c);
  }
  /// b where either is NaN.
  [[gnu::always_inline]] static Vector max(Vector a, Vector b) { return _mm256_max_ps(a, b); }
  [[gnu::always_inline]] static Mask less(Vector a, Vector b) {
    return _mm256_cmp_ps(a, b, _CMP_LT_OQ);
  }
  [[gnu::always_inline]] static Mask equal(Vector a, Vector b) {
    return _mm256_cmp_ps(a, b, _CMP_EQ_OQ);
  }
  [[gnu::always_inline]] static Vector select(Mask mask, Vector yes, Vector no) {
    return _mm256_blendv_ps(no, yes, mask);
  }
  [[gnu::always_inline]] static Vector round(Vector x) {
    return _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  }
  /// p * 2^n for whole n of [-126, 0]; anything for others.
  [[gnu::always_inline]] static Vector scale(Vector p, Vector n) {
    const __m256i exponent = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
    return p * _mm256_castsi256_ps(_mm256_slli_epi32(exponent, 23));
  }
  [[gnu::always_inline]] static Vector from_int(const std::int32_t* from) {
    return _mm256_cvtepi32_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
  }
  template <DType kDType>
  [[gnu::always_inline]] static Vector widen(const std::uint16_t* from) {
    if constexpr (kDType == DType::kFp32) return load(reinterpret_cast<const float*>(from));
    const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
    if constexpr (kDType == DType::kFp16) return _mm256_cvtph_ps(bits);
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
  }
  [[gnu::always_inline]] static Vector widen_e4m3(const std::uint8_t* from) {
    const __m128i words =
        _mm_cvtepu8_epi16(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(from)));
    // As fp16, with one more bit of exponent, a number is 2^8 too small.
    const __m128i halves =
        _mm_and_si128(_mm_srai_epi16(_mm_slli_epi16(words, 8), 1), _mm_set1_epi16(-0x4001));
    const __m128i magnitudes = _mm_and_si128(words, _mm_set1_epi16(0x7f));
    const __m128i nan = _mm_cmpeq_epi16(magnitudes, _mm_set1_epi16(0x7f));
    return _mm256_cvtph_ps(_mm_or_si128(halves, nan)) * _mm256_set1_ps(256);
  }
  /// sums[i] = the sum of the lanes of v[i], in a fixed tree.
  [[gnu::always_inline]] static void add_lanes(const Vector (&v)[4], float (&sums)[4]) {
    const Vector v01 = _mm256_unpacklo_ps(v[0], v[1]) + _mm256_unpackhi_ps(v[0], v[1]);
    const Vector v23 = _mm256_unpacklo_ps(v[2], v[3]) + _mm256_unpackhi_ps(v[2], v[3]);
    const Vector quarters = _mm256_shuffle_ps(v01, v23, 0x44) + _mm256_shuffle_ps(v01, v23, 0xee);
    _mm_storeu_ps(sums, _mm256_castps256_ps128(quarters) + _mm256_extractf128_ps(quarters, 1));
  }
};

}  // namespace mla::kernels::avx2
