#pragma once

#include <cstdint>

#include "core/partial.h"

// The online softmax on vectors of any width. A `Simd` is a type with the vectors of an instruction
// set and what they can do; see cpu/portable/simd.h. Everything here is forced inline, so that no
// copy of it can be linked into code for other CPUs.

namespace mla::kernels::cpu {

/// 2^x for x <= 0 with a relative error below 2e-7; exactly 0 below the smallest normal number
/// (-inf too), exactly 1 at 0; NaN stays NaN. Round to the nearest integer n, a minimax polynomial
/// (relative error, constant term 1) on [-1/2, 1/2], scale by 2^n.
template <class Simd>
[[gnu::always_inline]] inline typename Simd::Vector exp2(typename Simd::Vector x) {
  using Vector = typename Simd::Vector;
  const Vector n = Simd::round(x);
  const Vector f = x - n;
  Vector p = Simd::broadcast(1.326472862e-3F);
  p = Simd::fma(p, f, Simd::broadcast(9.671513720e-3F));
  p = Simd::fma(p, f, Simd::broadcast(5.550733750e-2F));
  p = Simd::fma(p, f, Simd::broadcast(2.402224207e-1F));
  p = Simd::fma(p, f, Simd::broadcast(6.931469776e-1F));
  p = Simd::fma(p, f, Simd::broadcast(1.0F));
  return Simd::select(Simd::less(x, Simd::broadcast(-126.0F)), Vector{}, Simd::scale(p, n));
}

/// Where a single weight is at least that share of their sum, rounding it to bf16 would show in the
/// result: there is too little else to average the errors out.
inline constexpr float kHeavyWeight = 1.0F / 64;

/// One step of the online softmax for a vector of query rows, one in each lane, over a block of
/// `tokens` tokens (rounded up to an even number by the caller): turns dot products into weights,
/// brings m and l up to date and says by how much earlier sums shrink.
/// @param scores   [tokens] vectors `ld` floats apart
/// @param visible  lanes' ends of the keys they see, counted from the block's begin
/// @param store    store(t, p0, p1) keeps the weights of tokens t and t + 1
/// @return lanes in which a weight of this block is more than kHeavyWeight of all weights so far
template <class Simd, class Store>
[[gnu::always_inline]] inline typename Simd::Mask softmax_step(float* scores, std::int64_t ld,
                                                               int tokens,
                                                               typename Simd::Vector visible,
                                                               float scale_log2, float* m, float* l,
                                                               float* rescale, Store&& store) {
  using Vector = typename Simd::Vector;
  const Vector empty = Simd::broadcast(kEmptyM);
  const Vector scale = Simd::broadcast(scale_log2);
  const Vector m_old = Simd::load(m);
  Vector m_block = empty;
  for (int t = 0; t < tokens; ++t) {
    const auto seen = Simd::less(Simd::broadcast(static_cast<float>(t)), visible);
    const Vector score = Simd::select(seen, Simd::load(scores + t * ld) * scale, empty);
    Simd::store(scores + t * ld, score);
    m_block = Simd::max(m_block, score);
  }
  const Vector m_new = Simd::max(m_old, m_block);

  // A row that has seen no key keeps m = -inf; subtracting 0 instead gives weights of exactly 0.
  const Vector base = Simd::select(Simd::equal(m_new, empty), Vector{}, m_new);
  const Vector shrink = exp2<Simd>(m_old - base);
  Vector block_sum{};  // apart from l: fewer additions to a large sum lose less
  for (int t = 0; t < tokens; t += 2) {
    const Vector p0 = exp2<Simd>(Simd::load(scores + t * ld) - base);
    const Vector p1 = exp2<Simd>(Simd::load(scores + (t + 1) * ld) - base);
    block_sum = block_sum + (p0 + p1);
    store(t, p0, p1);
  }
  const Vector sum = Simd::load(l) * shrink + block_sum;
  Simd::store(m, m_new);
  Simd::store(l, sum);
  Simd::store(rescale, shrink);
  return Simd::less(sum * Simd::broadcast(kHeavyWeight), exp2<Simd>(m_block - base));
}

}  // namespace mla::kernels::cpu
