#pragma once

#include <bit>
#include <cstdint>

#include <immintrin.h>

#include "core/partial.h"
#include "kernels/cpu/amx/outputs.h"
#include "kernels/cpu/amx/repack.h"
#include "kernels/cpu/amx/scratch.h"
#include "kernels/cpu/amx/tiles.h"
#include "kernels/cpu/avx512/pairs.h"
#include "kernels/cpu/avx512/simd.h"
#include "kernels/cpu/softmax.h"

// Included only by files compiled for AMX and AVX-512; `Tiles` is a type of an unnamed namespace,
// so that nothing here is linked elsewhere.

namespace mla::kernels::amx {

/// The base of a row's weights moves only when a score lies more than this above it, in powers of
/// two. So weights are at most 2^8, which bf16 rounds like any other, and outputs are seldom
/// rescaled.
inline constexpr float kBaseSlack = 8;

/// The online softmax of a block's groups, one after the other as their scores become known, in
/// small pieces that are done between tile products. Turns the scores of `tokens` tokens, whole
/// steps, into tiles of weights and brings m, l and o of earlier blocks up to date.
template <class Tiles>
class BlockSoftmax {
  static constexpr int kTokens = 4;  // of a piece that computes weights; one of maxima has 32

 public:
  /// Pieces that the softmax of 32 tokens takes.
  static constexpr int kPiecesForTwoGroups = 2 * (1 + kStep / kTokens);

  /// The block begins `begin` tokens into the chunk. `pieces` are done at each `advance`.
  [[gnu::always_inline]] BlockSoftmax(const Scratch& s, int tokens, std::int64_t begin,
                                      float scale_log2, const PartialView& result,
                                      const Outputs& outputs, int pieces)
      : s_(s),
        result_(result),
        outputs_(outputs),
        scale_log2_(scale_log2),
        tokens_(tokens),
        begin_(begin),
        pieces_(pieces) {}

  /// Room for the scores of a group; those of four groups are kept.
  [[gnu::always_inline]] float* scores(std::int64_t group) const {
    return s_.scores + group % kScoredGroups * (kBlockTokens * kLanes);
  }
  /// Groups below `end` are scored.
  [[gnu::always_inline]] void set_scored(std::int64_t end) { scored_ = end; }
  [[gnu::always_inline]] void advance() {
    for (int i = 0; i < pieces_ && group_ < scored_; ++i) work();
  }
  /// Groups below `end` are done.
  [[gnu::always_inline]] void finish(std::int64_t end) {
    while (group_ < end) work();
  }
  /// The rows that have residuals.
  int heavy_rows() const { return heavy_rows_; }

 private:
  using Simd = avx512::Simd;

  [[gnu::noinline]] void work() {
    if (token_ < tokens_) {
      find_maximum();
    } else {
      weigh(token_ - tokens_);
    }
  }

  /// Scales and masks the scores of one step.
  [[gnu::always_inline]] void find_maximum() {
    const std::int64_t lane = group_ * kLanes;
    const auto visible =
        Simd::from_int(s_.visible + lane) - Simd::broadcast(static_cast<float>(begin_ + token_));
    const __m512 empty = Simd::broadcast(kEmptyM);
    const __m512 scale = Simd::broadcast(scale_log2_);
    float* scores = this->scores(group_) + token_ * kLanes;
    __m512 max = token_ == 0 ? empty : max_;
#pragma GCC unroll 4
    for (int t = 0; t < kStep; ++t) {
      const auto seen = Simd::less(Simd::broadcast(static_cast<float>(t)), visible);
      const __m512 score = Simd::select(seen, Simd::load(scores + t * kLanes) * scale, empty);
      Simd::store(scores + t * kLanes, score);
      max = Simd::max(score, max);
    }
    max_ = max;
    token_ += kStep;
    if (token_ == tokens_) settle_base();
  }

  /// Moves the bases of rows of which this block has a score far above.
  [[gnu::always_inline]] void settle_base() {
    const std::int64_t lane = group_ * kLanes;
    const __m512 before = Simd::load(result_.m_log2 + lane);
    const __mmask16 moved = Simd::less(before + Simd::broadcast(kBaseSlack), max_);
    const __m512 m = Simd::select(moved, max_, before);
    // A row that has seen no key keeps m = -inf; subtracting 0 instead gives weights of exactly 0.
    base_ = Simd::select(Simd::equal(m, Simd::broadcast(kEmptyM)), __m512{}, m);
    sum_ = __m512{};
    Simd::store(result_.m_log2 + lane, m);
    if (begin_ == 0 || moved == 0) return;
    const __m512 shrink = cpu::exp2<Simd>(before - base_);
    Simd::store(result_.l + lane, Simd::load(result_.l + lane) * shrink);
    alignas(64) float factors[kLanes];
    Simd::store(factors, shrink);
    for (unsigned rest = moved; rest != 0; rest &= rest - 1) {
      const int i = std::countr_zero(rest);
      outputs_.scale(lane + i, factors[i]);
    }
  }

  /// The weights of kTokens tokens.
  [[gnu::always_inline]] void weigh(int token) {
    const float* scores = this->scores(group_) + token * kLanes;
#pragma GCC unroll 2
    for (int t = 0; t < kTokens; t += 2) {
      const __m512 p0 = cpu::exp2<Simd>(Simd::load(scores + t * kLanes) - base_);
      const __m512 p1 = cpu::exp2<Simd>(Simd::load(scores + (t + 1) * kLanes) - base_);
      sum_ = sum_ + (p0 + p1);
      _mm512_store_si512(s_.pairs + (token + t) % kStep / 2 * kLanes, avx512::pair_up(p0, p1));
    }
    token_ += kTokens;
    if (token_ % kStep != 0) return;
    transpose_pairs(s_.weights + (group_ * kWeightSteps + token / kStep) * kTileWords);
    if (token_ == 2 * tokens_) close_group();
  }

  /// A tile of 16 token pairs x 16 query rows becomes one of query rows x token pairs.
  [[gnu::always_inline]] void transpose_pairs(std::uint32_t* to) const {
    __m512i rows[16];
    load_transposed(s_.pairs, rows);
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i) _mm512_store_si512(to + i * 16, rows[i]);
  }

  [[gnu::always_inline]] void close_group() {
    const std::int64_t lane = group_ * kLanes;
    const __m512 sum = Simd::load(result_.l + lane) + sum_;
    Simd::store(result_.l + lane, sum);
    const unsigned heavy =
        Simd::less(sum * Simd::broadcast(cpu::kHeavyWeight), cpu::exp2<Simd>(max_ - base_));
    if (heavy != 0) pack_residuals(heavy);
    ++group_;
    token_ = 0;
  }

  /// Rounding a weight to bf16 keeps 8 bits of it. For the rows `heavy` of the group, where that
  /// would show, keeps the next 8 too: packs rows of what rounding took away behind those of other
  /// groups.
  [[gnu::noinline]] void pack_residuals(unsigned heavy) {
    const float* scores = this->scores(group_);
    for (int step = 0; step * kStep < tokens_; ++step) {
      for (int t = 0; t < kStep; t += 2, scores += 2 * kLanes) {
        const __m512 p0 = cpu::exp2<Simd>(Simd::load(scores) - base_);
        const __m512 p1 = cpu::exp2<Simd>(Simd::load(scores + kLanes) - base_);
        _mm512_store_si512(s_.pairs + t / 2 * kLanes,
                           avx512::pair_up(avx512::residual(p0), avx512::residual(p1)));
      }
      alignas(64) std::uint32_t tile[kTileWords];
      transpose_pairs(tile);
      int place = heavy_rows_;
      for (unsigned rest = heavy; rest != 0; rest &= rest - 1, ++place) {
        std::uint32_t* to = s_.residuals + (place / kTileRows * kWeightSteps + step) * kTileWords;
        const __m512i row = _mm512_load_si512(tile + std::countr_zero(rest) * 16);
        _mm512_store_si512(to + place % kTileRows * 16, row);
      }
    }
    for (; heavy != 0; heavy &= heavy - 1) {
      const std::int64_t row = group_ * kLanes + std::countr_zero(heavy);
      s_.heavy_rows[heavy_rows_++] = static_cast<std::int32_t>(row);
    }
  }

  const Scratch& s_;
  const PartialView& result_;
  const Outputs& outputs_;
  const float scale_log2_;
  const int tokens_;
  const std::int64_t begin_;
  const int pieces_;
  std::int64_t scored_ = 0;
  std::int64_t group_ = 0;
  int token_ = 0;  // of the group: maxima up to tokens_, then weights
  int heavy_rows_ = 0;
  __m512 max_{};
  __m512 base_{};
  __m512 sum_{};
};

}  // namespace mla::kernels::amx
