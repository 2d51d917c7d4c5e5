#pragma once

#include <cstdint>

#include <immintrin.h>

#include "core/partial.h"
#include "kernels/cpu/avx512/scratch.h"

// Included only by the files compiled for AVX-512. Everything here is forced inline, so that no
// copy of it can be linked into code for other CPUs.

namespace mla::kernels::avx512 {

/// 2^x for x <= 0 with a relative error below 2e-7; exactly 0 below the smallest normal number
/// (-inf too), exactly 1 at 0; NaN stays NaN. Round to the nearest integer n, a minimax polynomial
/// (relative error, constant term 1) on [-1/2, 1/2], scale by 2^n.
[[gnu::always_inline]] inline __m512 exp2(__m512 x) {
  const __mmask16 kept = _mm512_cmp_ps_mask(x, _mm512_set1_ps(-126.0F), _CMP_NLT_UQ);
  const __m512 n = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  const __m512 f = _mm512_sub_ps(x, n);
  __m512 p = _mm512_set1_ps(1.326472862e-3F);
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(9.671513720e-3F));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(5.550733750e-2F));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(2.402224207e-1F));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(6.931469776e-1F));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(1.0F));
  return _mm512_maskz_scalef_ps(kept, p, n);
}

/// What a step of the online softmax says of 16 query rows, a bit for each.
struct StepMasks {
  __mmask16 moved;  ///< the maximum moved, so earlier sums shrink
  __mmask16 heavy;  ///< a weight of this block is more than kHeavyWeight of all weights so far
};

/// Where a single weight is at least that share of their sum, rounding it to bf16 would show in the
/// result: there is too little else to average the errors out.
inline constexpr float kHeavyWeight = 1.0F / 64;

/// One step of the online softmax for 16 query rows, one in each lane, over a block of `tokens`
/// tokens (rounded up to an even number by the caller): turns dot products into weights, brings
/// m and l up to date and says by how much earlier sums shrink.
/// @param scores   [tokens] vectors `ld` floats apart
/// @param visible  lanes' ends of the keys they see, counted from the block's begin
/// @param store    store(t, p0, p1) keeps the weights of tokens t and t + 1
template <class Store>
[[gnu::always_inline]] inline StepMasks softmax_step(float* scores, std::int64_t ld, int tokens,
                                                     __m512i visible, float scale_log2, float* m,
                                                     float* l, float* rescale, Store&& store) {
  const __m512 empty = _mm512_set1_ps(kEmptyM);
  const __m512 scale = _mm512_set1_ps(scale_log2);
  const __m512 m_old = _mm512_loadu_ps(m);
  __m512 m_block = empty;
  for (int t = 0; t < tokens; ++t) {
    const __mmask16 seen = _mm512_cmplt_epi32_mask(_mm512_set1_epi32(t), visible);
    const __m512 dot = _mm512_load_ps(scores + t * ld);
    const __m512 score = _mm512_mask_mul_ps(empty, seen, dot, scale);
    _mm512_store_ps(scores + t * ld, score);
    m_block = _mm512_max_ps(m_block, score);
  }
  const __m512 m_new = _mm512_max_ps(m_old, m_block);

  // A row that has seen no key keeps m = -inf; subtracting 0 instead gives weights of exactly 0.
  const __mmask16 nothing_seen = _mm512_cmp_ps_mask(m_new, empty, _CMP_EQ_OQ);
  const __m512 base = _mm512_mask_mov_ps(m_new, nothing_seen, _mm512_setzero_ps());
  const __m512 shrink = exp2(_mm512_sub_ps(m_old, base));
  __m512 sum = _mm512_mul_ps(_mm512_loadu_ps(l), shrink);
  for (int t = 0; t < tokens; t += 2) {
    const __m512 p0 = exp2(_mm512_sub_ps(_mm512_load_ps(scores + t * ld), base));
    const __m512 p1 = exp2(_mm512_sub_ps(_mm512_load_ps(scores + (t + 1) * ld), base));
    sum = _mm512_add_ps(sum, _mm512_add_ps(p0, p1));
    store(t, p0, p1);
  }
  _mm512_storeu_ps(m, m_new);
  _mm512_storeu_ps(l, sum);
  _mm512_store_ps(rescale, shrink);
  const __m512 heaviest = exp2(_mm512_sub_ps(m_block, base));
  const __m512 bound = _mm512_mul_ps(sum, _mm512_set1_ps(kHeavyWeight));
  return {_mm512_cmp_ps_mask(m_old, m_new, _CMP_NEQ_UQ),
          _mm512_cmp_ps_mask(heaviest, bound, _CMP_GT_OQ)};
}

}  // namespace mla::kernels::avx512
