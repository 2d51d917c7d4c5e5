#include <immintrin.h>

#include "kernels/cpu/avx512/decode.h"
#include "kernels/cpu/avx512/out_tiles.h"
#include "kernels/cpu/avx512/pairs.h"
#include "kernels/cpu/avx512/score_tiles.h"
#include "kernels/cpu/avx512/simd.h"
#include "kernels/cpu/avx512/transpose.h"
#include "kernels/cpu/chunk_loop.h"
#include "kernels/cpu/tiles.h"
#include "kernels/product_loop.h"

namespace mla::kernels::avx512 {
namespace {

using cpu::kResidualLd;
using cpu::Scratch;

constexpr int kLanes = Simd::kLanes;

/// The accumulator for the 16 floats `out` of row `r` of the tile, as they stand before the block.
[[gnu::always_inline]] inline __m512 start_sum(const OutTile& tile, int r, const float* out,
                                               __mmask16 valid) {
  if (tile.earlier == Earlier::kNone) return _mm512_setzero_ps();
  const __m512 sum = _mm512_maskz_loadu_ps(valid, out);
  if (tile.earlier == Earlier::kKept) return sum;
  return _mm512_mul_ps(sum, _mm512_set1_ps(tile.scratch.rescale[tile.rows[r]]));
}

/// The first `count` lanes, at most all.
[[gnu::always_inline]] inline __mmask16 lanes_below(std::int64_t count) {
  return static_cast<__mmask16>(count >= kLanes ? 0xffff : (1U << count) - 1);
}

/// bf16 queries, keys, weights and values; fp32 sums.
struct Bf16Scheme {
  using Simd = avx512::Simd;
  static constexpr int kBlockTokens = 128;
  static constexpr int kTokensAhead = 32;
  static constexpr int kTileRows = 12;
  static constexpr int kTileVectors = 2;
  static constexpr bool kRoundsWeights = true;

  /// q_pairs[group][pair][lane] <- the query rows, 16 to a group; missing rows are 0.
  static void pack_queries(const DecodeParams& params, std::int64_t groups, const Scratch& s) {
    const std::int64_t pairs = params.shape.d_qk / 2;
    std::uint32_t* to = s.q_pairs;
    for (std::int64_t row = params.rows.begin; row < params.rows.begin + groups * kLanes;
         row += kLanes) {
      for (std::int64_t k = 0; k < pairs; k += kLanes) {
        const __mmask16 valid = lanes_below(pairs - k);
        __m512i v[kLanes];
#pragma GCC unroll 16
        for (int i = 0; i < kLanes; ++i) {
          v[i] = row + i < params.rows.end
                     ? _mm512_maskz_loadu_epi32(valid, params.q_row(row + i) + 2 * k)
                     : _mm512_setzero_si512();
        }
        transpose(v);
#pragma GCC unroll 16
        for (int i = 0; i < kLanes; ++i) {
          if (k + i < pairs) _mm512_store_si512(to + i * kLanes, v[i]);
        }
        to += kLanes * (pairs - k < kLanes ? pairs - k : kLanes);
      }
    }
  }

  [[gnu::noinline]] static void score_two_groups(const ScoreTile& tile) {
    avx512::score_two_groups(tile);
  }
  template <int kTokenQuads, int kRowQuads>
  [[gnu::noinline]] static void score_quads(const ScoreTile& tile) {
    avx512::score_quads<kTokenQuads, kRowQuads>(tile);
  }

  /// Rounds `tokens` up to whole tiles, for which `rows` has padding. The first groups' tiles
  /// prefetch rows of the cache, the second ones' what comes after the call.
  static void score_block(const DecodeParams& params, std::int64_t groups, int tokens,
                          const Scratch& s) {
    const std::int64_t pairs = params.shape.d_qk / 2;
    const std::int64_t ld = groups * kLanes;
    const std::uint16_t** const next = params.next.empty() ? nullptr : s.next;
    const auto tile_at = [&](int t, std::int64_t g) {
      const std::uint16_t** const ahead = g == 0 ? s.ahead : g == 2 ? next : nullptr;
      return ScoreTile{.rows = s.rows + t,
                       .q = s.q_pairs + g * pairs * kLanes,
                       .begin = params.q_zeros / 2 / kPairsPerStep * kPairsPerStep,
                       .pairs = pairs,
                       .scores = s.scores + t * ld + g * kLanes,
                       .ld = ld,
                       .ahead = ahead == nullptr ? nullptr : ahead + t};
    };
    std::int64_t g = 0;
    for (; g + 2 <= groups; g += 2) {
      for (int t = 0; t < tokens; t += 8) score_two_groups(tile_at(t, g));
    }
    if (g == groups) return;
    cpu::with_constant<4>(ceil_div(params.rows.size() - g * kLanes, 4), [&]<int kRowQuads>() {
      // Enough sums to hide the latency of the products.
      constexpr int kTokenQuads = kRowQuads > 2 ? 4 : 8;
      for (int t = 0; t < tokens; t += 4 * kTokenQuads) {
        score_quads<kTokenQuads, kRowQuads>(tile_at(t, g));
      }
    });
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
                             const PartialView& result, __mmask16 all_heavy, int place) {
    const __mmask16 heavy = all_heavy & lanes_below(result.rows - lane);
    if (heavy == 0) return 0;
    const __m512 base = _mm512_loadu_ps(result.m_log2 + lane);
    const __m512i row =
        _mm512_add_epi32(_mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15),
                         _mm512_set1_epi32(static_cast<int>(lane)));
    const auto count = _mm_popcnt_u32(heavy);
    const auto first = static_cast<__mmask16>((1U << count) - 1);
    _mm512_mask_storeu_epi32(s.heavy_rows + place, first, _mm512_maskz_compress_epi32(heavy, row));
    for (int t = 0; t < tokens; t += 2) {
      const float* scores = s.scores + t * ld + lane;
      const __m512 r0 = residual(cpu::exp2<Simd>(_mm512_sub_ps(_mm512_load_ps(scores), base)));
      const __m512 r1 = residual(cpu::exp2<Simd>(_mm512_sub_ps(_mm512_load_ps(scores + ld), base)));
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
#pragma GCC unroll 12
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
#pragma GCC unroll 12
      for (int r = 0; r < kRows; ++r) {
        const __m512bh pair = broadcast_pair(weights + r);
        low[r] = _mm512_dpbf16_ps(low[r], v_low, pair);
        high[r] = _mm512_dpbf16_ps(high[r], v_high, pair);
      }
    }
#pragma GCC unroll 12
    for (int r = 0; r < kRows; ++r) {
      float* out = tile.out_row(r);
      _mm512_mask_storeu_ps(out, kFloats, low[r]);
      _mm512_mask_storeu_ps(out + kHalf, kFloats, high[r]);
    }
  }

  static void accumulate_block(const Scratch& s, int tokens, std::int64_t ld, int num_heavy,
                               const PartialView& result, bool first) {
    accumulate_rows<Bf16Scheme>(s, tokens, {s.all_rows, result.rows, s.weights, ld}, result,
                                first ? Earlier::kNone : Earlier::kRescaled);
    accumulate_rows<Bf16Scheme>(s, tokens, {s.heavy_rows, num_heavy, s.residuals, kResidualLd},
                                result, Earlier::kKept);
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
  cpu::decode_with<Bf16Scheme>(params, chunks, nodes, scratch);
}

double run_bf16_products(std::int64_t count) noexcept {
  return product_loop<24>(count, 4 * kLanes, __m512{}, _mm512_set1_epi32(0x3f803f80),
                          [](__m512 sum, __m512i ones) {
                            return _mm512_dpbf16_ps(sum, reinterpret_cast<__m512bh>(ones),
                                                    reinterpret_cast<__m512bh>(ones));
                          });
}

}  // namespace mla::kernels::avx512
