#pragma once

#include <bit>
#include <cstdint>

#include <immintrin.h>

#include "core/partial.h"
#include "kernels/cpu/amx/repack.h"
#include "kernels/cpu/amx/scratch.h"
#include "kernels/cpu/amx/tiles.h"
#include "kernels/cpu/avx512/pairs.h"
#include "kernels/cpu/avx512/simd.h"
#include "kernels/cpu/softmax.h"

// Included only by files compiled for AMX and AVX-512; forced inline, so that no copy of it can be
// linked into code for other CPUs.

namespace mla::kernels::amx {

/// What the softmax of 32 tokens takes, in steps of four tile products.
inline constexpr int kStepsPerSoftmax = 6;

/// weights[group] <- the pairs of one group as tiles of 32 tokens; `tokens` is whole steps.
[[gnu::always_inline]] inline void pack_weights(const Scratch& s, std::int64_t group, int tokens) {
  std::uint32_t* tile = s.weights + group * kWeightSteps * kTileWords;
  for (int step = 0; step * kStep < tokens; ++step, tile += kTileWords) {
    __m512i rows[16];
    load_transposed(s.pairs + step * kTileWords, rows);
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i) _mm512_store_si512(tile + i * 16, rows[i]);
  }
}

/// Rounding a weight to bf16 keeps 8 bits of it. For the rows `heavy` of the group, where that
/// would show, keeps the next 8 too: packs rows of what rounding took away behind the `count` rows
/// of other groups. Returns how many there are then.
[[gnu::always_inline]] inline int pack_residuals(const Scratch& s, std::int64_t group, int tokens,
                                                 __m512 m, unsigned heavy, int count) {
  const float* scores = s.scores + group * kBlockTokens * kLanes;
  for (int t = 0; t < tokens; t += 2) {
    const auto residual = [&](int i) __attribute__((always_inline)) {
      const __m512 score = _mm512_load_ps(scores + i * kLanes);
      return avx512::residual(cpu::exp2<avx512::Simd>(_mm512_sub_ps(score, m)));
    };
    _mm512_store_si512(s.pairs + t / 2 * kLanes, avx512::pair_up(residual(t), residual(t + 1)));
  }
  for (int step = 0; step * kStep < tokens; ++step) {
    alignas(64) std::uint32_t tile[kTileWords];
    __m512i rows[16];
    load_transposed(s.pairs + step * kTileWords, rows);
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i) _mm512_store_si512(tile + i * 16, rows[i]);
    int place = count;
    for (unsigned rest = heavy; rest != 0; rest &= rest - 1, ++place) {
      std::uint32_t* to = s.residuals + (place / kTileRows * kWeightSteps + step) * kTileWords;
      const __m512i row = _mm512_load_si512(tile + std::countr_zero(rest) * 16);
      _mm512_store_si512(to + place % kTileRows * 16, row);
    }
  }
  for (; heavy != 0; heavy &= heavy - 1) {
    const std::int64_t row = group * kLanes + std::countr_zero(heavy);
    s.heavy_rows[count++] = static_cast<std::int32_t>(row);
  }
  return count;
}

/// The online softmax of one group in one block: turns the scores of `tokens` tokens, whole steps,
/// into tiles of weights and brings m and l of `result` up to date. The block begins `begin` tokens
/// into the chunk; missing tokens are seen by no row. `heavy_rows` is the number of heavy rows of
/// the groups before; returns it with this group's added.
[[gnu::always_inline]] inline int weigh_group(const Scratch& s, std::int64_t group, int tokens,
                                              std::int64_t begin, float scale_log2,
                                              const PartialView& result, int heavy_rows,
                                              Prefetcher& ahead) {
  using avx512::Simd;
  const std::int64_t lane = group * kLanes;
  const auto visible =
      Simd::from_int(s.visible + lane) - Simd::broadcast(static_cast<float>(begin));
  const unsigned heavy = cpu::softmax_step<Simd>(
      s.scores + lane * kBlockTokens, kLanes, tokens, visible, scale_log2, result.m_log2 + lane,
      result.l + lane, s.rescale + lane, [&](int t, __m512 p0, __m512 p1) {
        if (t % kStep == 0) ahead.advance(kStepsPerSoftmax);
        _mm512_store_si512(s.pairs + t / 2 * kLanes, avx512::pair_up(p0, p1));
      });
  pack_weights(s, group, tokens);
  if (heavy == 0) return heavy_rows;
  // A heavy row has seen a key.
  return pack_residuals(s, group, tokens, Simd::load(result.m_log2 + lane), heavy, heavy_rows);
}

}  // namespace mla::kernels::amx
