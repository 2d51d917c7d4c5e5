#include <cstring>

#include <immintrin.h>

#include "kernels/cpu/avx512/chunk_loop.h"
#include "kernels/cpu/avx512/decode.h"
#include "kernels/cpu/avx512/pairs.h"

namespace mla::kernels::avx512 {
namespace {

constexpr int kPairsPerLine = 16;  // of elements, in a cache line
constexpr int kPairsPerStep = 4;   // d_qk is a multiple of 8 elements

/// A pair of bf16 elements in every lane.
[[gnu::always_inline]] inline __m512bh broadcast_pair(const void* pair) {
  std::int32_t bits;
  std::memcpy(&bits, pair, sizeof bits);
  return reinterpret_cast<__m512bh>(_mm512_set1_epi32(bits));
}

/// scores[token][lanes] of kTokens tokens and kGroups groups of query rows: 16 accumulators, K
/// broadcast from its own row. On the way, prefetches the rows `ahead` of as many tokens, unless
/// that is null.
template <int kTokens, int kGroups>
[[gnu::always_inline]] inline void score_tile(const std::uint16_t* const* rows,
                                              const std::uint16_t* const* ahead,
                                              const std::uint32_t* q, std::int64_t pairs,
                                              float* scores, std::int64_t ld, NextLines& next) {
  __m512 sum[kTokens][kGroups];
  for (auto& token : sum) {
    for (auto& group : token) group = _mm512_setzero_ps();
  }
  for (std::int64_t line = 0; line < pairs; line += kPairsPerLine) {
    next.advance(1);
    if (ahead != nullptr) {
#pragma GCC unroll 16
      for (int t = 0; t < kTokens; ++t) {
        _mm_prefetch(reinterpret_cast<const char*>(ahead[t] + 2 * line), _MM_HINT_T1);
      }
    }
    const std::int64_t line_end = line + kPairsPerLine < pairs ? line + kPairsPerLine : pairs;
    for (std::int64_t step = line; step < line_end; step += kPairsPerStep) {
      __m512bh q_step[kPairsPerStep][kGroups];
#pragma GCC unroll 4
      for (int k = 0; k < kPairsPerStep; ++k) {
#pragma GCC unroll 2
        for (int g = 0; g < kGroups; ++g) {
          q_step[k][g] =
              reinterpret_cast<__m512bh>(_mm512_load_si512(q + (g * pairs + step + k) * kLanes));
        }
      }
#pragma GCC unroll 16
      for (int t = 0; t < kTokens; ++t) {
        const std::uint16_t* row = rows[t] + 2 * step;
#pragma GCC unroll 4
        for (int k = 0; k < kPairsPerStep; ++k) {
          const __m512bh pair = broadcast_pair(row + 2 * k);
#pragma GCC unroll 2
          for (int g = 0; g < kGroups; ++g) {
            sum[t][g] = _mm512_dpbf16_ps(sum[t][g], q_step[k][g], pair);
          }
        }
      }
    }
  }
#pragma GCC unroll 16
  for (int t = 0; t < kTokens; ++t) {
#pragma GCC unroll 2
    for (int g = 0; g < kGroups; ++g) {
      _mm512_store_ps(scores + t * ld + g * kLanes, sum[t][g]);
    }
  }
}

/// bf16 queries, keys, weights and values; fp32 sums.
struct Bf16Scheme {
  static constexpr bool kRoundsWeights = true;

  /// q_pairs[group][pair][lane] <- the query rows, 16 to a group; missing rows are 0.
  static void pack_queries(const DecodeParams& params, std::int64_t groups, const Scratch& s) {
    const std::int64_t pairs = params.shape.d_qk / 2;
    for (std::int64_t i = 0; i < groups * kLanes; ++i) {
      std::uint32_t* to = s.q_pairs + i / kLanes * pairs * kLanes + i % kLanes;
      const bool exists = i < params.rows.size();
      const std::uint16_t* from = exists ? params.q_row(params.rows.begin + i) : s.zero_row;
      for (std::int64_t k = 0; k < pairs; ++k) {
        std::memcpy(to + k * kLanes, from + 2 * k, sizeof *to);
      }
    }
  }

  /// Rounds `tokens` up to whole tiles, for which `rows` has padding.
  static void score_block(const DecodeParams& params, std::int64_t groups, int tokens,
                          const Scratch& s, NextLines& next) {
    const std::int64_t pairs = params.shape.d_qk / 2;
    const std::int64_t ld = groups * kLanes;
    for (std::int64_t g = 0; g < groups; g += 2) {
      const auto* const* ahead = g == 0 ? s.ahead : nullptr;
      const std::uint32_t* q = s.q_pairs + g * pairs * kLanes;
      const bool lone = g + 1 == groups;
      for (int t = 0; t < tokens; t += lone ? kTileTokens : kTileTokens / 2) {
        const auto* const* tile_ahead = ahead == nullptr ? nullptr : ahead + t;
        float* scores = s.scores + t * ld + g * kLanes;
        if (lone) {
          score_tile<kTileTokens, 1>(s.rows + t, tile_ahead, q, pairs, scores, ld, next);
        } else {
          score_tile<kTileTokens / 2, 2>(s.rows + t, tile_ahead, q, pairs, scores, ld, next);
        }
      }
    }
  }

  /// weights[t / 2][lane] <- the pair (p0, p1), rounded to bf16.
  [[gnu::always_inline]] static void store_weights(const Scratch& s, std::int64_t ld,
                                                   std::int64_t lane, int t, __m512 p0, __m512 p1) {
    _mm512_store_si512(s.weights + t / 2 * ld + lane, pair_up(p0, p1));
  }

  /// Rounding a weight to bf16 keeps 8 bits of it. For the rows `heavy` of the 16 at `lane`, where
  /// that would show, keeps the next 8 too: residuals[t / 2][place] <- what rounding took away, the
  /// rows packed from `place` on. Returns how many there are.
  static int store_residuals(const Scratch& s, std::int64_t ld, std::int64_t lane, int tokens,
                             const float* m_log2, __mmask16 heavy, int place) {
    const __m512 base = _mm512_loadu_ps(m_log2);
    const __m512i row =
        _mm512_add_epi32(_mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15),
                         _mm512_set1_epi32(static_cast<int>(lane)));
    const auto count = _mm_popcnt_u32(heavy);
    const auto first = static_cast<__mmask16>((1U << count) - 1);
    _mm512_mask_storeu_epi32(s.heavy_rows + place, first, _mm512_maskz_compress_epi32(heavy, row));
    for (int t = 0; t < tokens; t += 2) {
      const float* scores = s.scores + t * ld + lane;
      const __m512 r0 = residual(exp2(_mm512_sub_ps(_mm512_load_ps(scores), base)));
      const __m512 r1 = residual(exp2(_mm512_sub_ps(_mm512_load_ps(scores + ld), base)));
      _mm512_storeu_si512(s.residuals + t / 2 * kResidualLd + place,
                          _mm512_maskz_compress_epi32(heavy, pair_up(r0, r1)));
    }
    return count;
  }

  /// Interleaves the value rows of two tokens in registers, which leaves the outputs in another
  /// order until `finish`. The partner of an odd last token is the zero row.
  template <int kRows, int kVectors>
  [[gnu::always_inline]] static void accumulate(const OutTile& tile) {
    constexpr int kHalf = kVectors * kLanes / 2;
    constexpr auto kValues = static_cast<__mmask32>((std::uint64_t{1} << (kVectors * kLanes)) - 1);
    constexpr auto kFloats = static_cast<__mmask16>((1U << kHalf) - 1);
    __m512 low[kRows];
    __m512 high[kRows];
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const float* out = tile.out_row(r);
      low[r] = start_sum(tile, r, out, kFloats);
      high[r] = start_sum(tile, r, out + kHalf, kFloats);
    }
    const std::uint32_t* weights = tile.weights;
    const auto* const* rows = tile.scratch.rows;
    for (int t = 0; t < tile.tokens; t += 2, weights += tile.ld) {
      const __m512i v0 = _mm512_maskz_loadu_epi16(kValues, rows[t] + tile.dim);
      const __m512i v1 = _mm512_maskz_loadu_epi16(kValues, rows[t + 1] + tile.dim);
      const auto v_low = reinterpret_cast<__m512bh>(_mm512_unpacklo_epi16(v0, v1));
      const auto v_high = reinterpret_cast<__m512bh>(_mm512_unpackhi_epi16(v0, v1));
#pragma GCC unroll 8
      for (int r = 0; r < kRows; ++r) {
        const __m512bh pair = broadcast_pair(weights + r);
        low[r] = _mm512_dpbf16_ps(low[r], v_low, pair);
        high[r] = _mm512_dpbf16_ps(high[r], v_high, pair);
      }
    }
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      float* out = tile.out_row(r);
      _mm512_mask_storeu_ps(out, kFloats, low[r]);
      _mm512_mask_storeu_ps(out + kHalf, kFloats, high[r]);
    }
  }

  /// Undoes what interleaving within 128-bit lanes did to the order of the outputs.
  static void finish(const PartialView& result) {
    const __m512i first = _mm512_setr_epi32(0, 1, 2, 3, 16, 17, 18, 19, 4, 5, 6, 7, 20, 21, 22, 23);
    const __m512i second =
        _mm512_setr_epi32(8, 9, 10, 11, 24, 25, 26, 27, 12, 13, 14, 15, 28, 29, 30, 31);
    // A last half tile holds 8 low floats, then 8 high ones, in one vector.
    const __m512i half = _mm512_setr_epi32(0, 1, 2, 3, 8, 9, 10, 11, 4, 5, 6, 7, 12, 13, 14, 15);
    for (std::int64_t row = 0; row < result.rows; ++row) {
      float* o = result.o + row * result.d_v;
      float* const end = o + result.d_v;
      for (; end - o >= 2 * kLanes; o += 2 * kLanes) {
        const __m512 low = _mm512_loadu_ps(o);
        const __m512 high = _mm512_loadu_ps(o + kLanes);
        _mm512_storeu_ps(o, _mm512_permutex2var_ps(low, first, high));
        _mm512_storeu_ps(o + kLanes, _mm512_permutex2var_ps(low, second, high));
      }
      if (o < end) _mm512_storeu_ps(o, _mm512_permutexvar_ps(half, _mm512_loadu_ps(o)));
    }
  }
};

}  // namespace

void decode_bf16(const DecodeParams& params, Range chunks, float* nodes,
                 const Scratch& scratch) noexcept {
  decode_with<Bf16Scheme>(params, chunks, nodes, scratch);
}

}  // namespace mla::kernels::avx512
