#pragma once

#include <bit>
#include <cstdint>

#include <immintrin.h>

#include "core/partial.h"
#include "kernels/cpu/amx/repack.h"
#include "kernels/cpu/amx/scratch.h"
#include "kernels/cpu/amx/tiles.h"
#include "kernels/cpu/avx512/pairs.h"
#include "kernels/cpu/avx512/softmax.h"

// Included only by files compiled for AMX and AVX-512.

namespace mla::kernels::amx {

/// What the softmax of a block says of the query rows.
struct BlockRows {
  unsigned moved[kMaxGroups];  ///< a bit for each row of a group whose maximum moved
  int heavy;                   ///< how many rows are in `heavy_rows`
};

/// The online softmax of one block: turns scores into tiles of weights and brings m and l up to
/// date, group by group as they are scored. The work is cut into slices of about as many cycles as
/// four tile products take, so that the vector units can do the softmax of some groups while the
/// tiles score others: a call of `advance` fits between two steps of the latter, but a whole
/// softmax would not fit into what the CPU reorders. `Tiles` only keeps the code within its file.
template <class Tiles>
class Weigher {
 public:
  /// `tokens` is whole steps; missing ones are seen by no row. The block begins `begin` tokens into
  /// the chunk whose partial is `result`.
  Weigher(const Scratch& s, float scale_log2, int tokens, std::int64_t begin,
          const PartialView& result)
      : s_(s), scale_log2_(scale_log2), tokens_(tokens), result_(result) {
    block_begin_ = _mm512_set1_epi32(static_cast<int>(begin));
  }

  /// Says that groups below `end` have been scored.
  void scored(std::int64_t end) { scored_ = end; }
  bool pending() const { return group_ < scored_; }

  /// Does one slice of what is pending.
  [[gnu::noinline]] void advance() {
    if (!pending()) return;
    switch (phase_) {
      case Phase::kScale:
        return scale();
      case Phase::kWeigh:
        return weigh();
      case Phase::kPack:
        return pack();
    }
  }

  /// Of the groups done.
  const BlockRows& rows() const { return rows_; }

 private:
  enum class Phase : std::uint8_t { kScale, kWeigh, kPack };
  static constexpr int kScaledAtOnce = 16;  // tokens of a slice; both divide kStep
  static constexpr int kWeighedAtOnce = 8;

  float* scores() const { return s_.scores + group_ * kBlockTokens * kLanes; }
  float* m() const { return result_.m_log2 + group_ * kLanes; }
  float* l() const { return result_.l + group_ * kLanes; }

  /// scores <- scaled ones, -inf where a row does not see the token; and their maximum.
  void scale() {
    const __m512 empty = _mm512_set1_ps(kEmptyM);
    const __m512 scale = _mm512_set1_ps(scale_log2_);
    const __m512i visible =
        _mm512_sub_epi32(_mm512_load_si512(s_.visible + group_ * kLanes), block_begin_);
    __m512 m_block = t_ == 0 ? empty : m_block_;
    float* score_at = scores() + t_ * kLanes;
#pragma GCC unroll 16
    for (int i = 0; i < kScaledAtOnce; ++i, score_at += kLanes) {
      const __mmask16 seen = _mm512_cmplt_epi32_mask(_mm512_set1_epi32(t_ + i), visible);
      const __m512 score = _mm512_mask_mul_ps(empty, seen, _mm512_load_ps(score_at), scale);
      _mm512_store_ps(score_at, score);
      m_block = _mm512_max_ps(m_block, score);
    }
    m_block_ = m_block;
    t_ += kScaledAtOnce;
    if (t_ == tokens_) move_maximum();
  }

  void move_maximum() {
    const __m512 empty = _mm512_set1_ps(kEmptyM);
    const __m512 m_old = _mm512_loadu_ps(m());
    const __m512 m_new = _mm512_max_ps(m_old, m_block_);
    // A row that has seen no key keeps m = -inf; subtracting 0 instead gives weights of exactly 0.
    const __mmask16 nothing_seen = _mm512_cmp_ps_mask(m_new, empty, _CMP_EQ_OQ);
    base_ = _mm512_mask_mov_ps(m_new, nothing_seen, _mm512_setzero_ps());
    const __m512 shrink = avx512::exp2(_mm512_sub_ps(m_old, base_));
    sum_ = _mm512_mul_ps(_mm512_loadu_ps(l()), shrink);
    _mm512_storeu_ps(m(), m_new);
    _mm512_store_ps(s_.rescale + group_ * kLanes, shrink);
    rows_.moved[group_] = _mm512_cmp_ps_mask(m_old, m_new, _CMP_NEQ_UQ);
    t_ = 0;
    phase_ = Phase::kWeigh;
  }

  [[gnu::always_inline]] __m512 weight(int t) const {
    return avx512::exp2(_mm512_sub_ps(_mm512_load_ps(scores() + t * kLanes), base_));
  }

  /// pairs <- the weights of some tokens; and their sum.
  void weigh() {
    __m512 sum = sum_;
#pragma GCC unroll 8
    for (int i = 0; i < kWeighedAtOnce; i += 2) {
      const __m512 p0 = weight(t_ + i);
      const __m512 p1 = weight(t_ + i + 1);
      sum = _mm512_add_ps(sum, _mm512_add_ps(p0, p1));
      _mm512_store_si512(s_.pairs + (t_ + i) / 2 * kLanes, avx512::pair_up(p0, p1));
    }
    sum_ = sum;
    t_ += kWeighedAtOnce;
    if (t_ % kStep == 0) phase_ = Phase::kPack;
  }

  /// The tile of weights of the last 32 tokens.
  void pack() {
    const int step = t_ / kStep - 1;
    __m512i rows[16];
    load_transposed(s_.pairs + step * kTileWords, rows);
    std::uint32_t* tile = s_.weights + (group_ * kWeightSteps + step) * kTileWords;
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i) _mm512_store_si512(tile + i * 16, rows[i]);
    phase_ = Phase::kWeigh;
    if (t_ == tokens_) finish_group();
  }

  void finish_group() {
    _mm512_storeu_ps(l(), sum_);
    const __m512 heaviest = avx512::exp2(_mm512_sub_ps(m_block_, base_));
    const __m512 bound = _mm512_mul_ps(sum_, _mm512_set1_ps(avx512::kHeavyWeight));
    const unsigned heavy = _mm512_cmp_ps_mask(heaviest, bound, _CMP_GT_OQ);
    if (heavy != 0) store_residuals(heavy);
    ++group_;
    t_ = 0;
    phase_ = Phase::kScale;
  }

  /// Rounding a weight to bf16 keeps 8 bits of it. For the rows `heavy` of the group, where that
  /// would show, keeps the next 8 too: packs rows of what rounding took away behind those of other
  /// groups.
  void store_residuals(unsigned heavy) {
    for (int t = 0; t < tokens_; t += 2) {
      const __m512 r0 = avx512::residual(weight(t));
      const __m512 r1 = avx512::residual(weight(t + 1));
      _mm512_store_si512(s_.pairs + t / 2 * kLanes, avx512::pair_up(r0, r1));
    }
    for (int step = 0; step * kStep < tokens_; ++step) {
      alignas(64) std::uint32_t tile[kTileWords];
      __m512i rows[16];
      load_transposed(s_.pairs + step * kTileWords, rows);
#pragma GCC unroll 16
      for (int i = 0; i < 16; ++i) _mm512_store_si512(tile + i * 16, rows[i]);
      int place = rows_.heavy;
      for (unsigned rest = heavy; rest != 0; rest &= rest - 1, ++place) {
        std::uint32_t* to = s_.residuals + (place / kTileRows * kWeightSteps + step) * kTileWords;
        const __m512i row = _mm512_load_si512(tile + std::countr_zero(rest) * 16);
        _mm512_store_si512(to + place % kTileRows * 16, row);
      }
    }
    for (; heavy != 0; heavy &= heavy - 1) {
      const std::int64_t row = group_ * kLanes + std::countr_zero(heavy);
      s_.heavy_rows[rows_.heavy++] = static_cast<std::int32_t>(row);
    }
  }

  const Scratch& s_;
  float scale_log2_;
  int tokens_;
  PartialView result_;
  __m512i block_begin_;

  std::int64_t scored_ = 0;
  std::int64_t group_ = 0;  // at work, with what follows
  Phase phase_ = Phase::kScale;
  int t_ = 0;
  __m512 m_block_;
  __m512 base_;
  __m512 sum_;
  BlockRows rows_{};
};

}  // namespace mla::kernels::amx
