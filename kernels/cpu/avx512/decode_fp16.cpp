#include <immintrin.h>

#include "kernels/cpu/avx512/chunk_loop.h"
#include "kernels/cpu/avx512/decode.h"

namespace mla::kernels::avx512 {
namespace {

constexpr int kElementsPerStep = 8;  // d_qk is a multiple of it

/// k_tile[line][token][element] <- 16 cache rows in fp32, 16 elements to a line, so that every
/// element of a line lies at a constant distance from the line's begin. Prefetches rows `ahead`.
void convert_tile(const std::uint16_t* const* rows, const std::uint16_t* const* ahead,
                  std::int64_t d_qk, float* k_tile, NextLines& next) {
  for (std::int64_t k = 0; k < d_qk; k += kLanes) {
    next.advance(1);
    float* line = k_tile + k * kTileTokens;
    const __mmask16 valid = d_qk - k >= kLanes ? 0xffff : 0x00ff;
    for (int t = 0; t < kTileTokens; ++t) {
      _mm_prefetch(reinterpret_cast<const char*>(ahead[t] + k), _MM_HINT_T1);
      const __m256i row = _mm256_maskz_loadu_epi16(valid, rows[t] + k);
      _mm512_store_ps(line + t * kLanes, _mm512_cvtph_ps(row));
    }
  }
}

/// scores[token][16 lanes] of kTokens of the tile's tokens and kGroups groups.
template <int kTokens, int kGroups>
[[gnu::always_inline]] inline void score_tile(const float* k_tile, const float* q,
                                              std::int64_t d_qk, float* scores, std::int64_t ld) {
  __m512 sum[kTokens][kGroups];
  for (auto& token : sum) {
    for (auto& group : token) group = _mm512_setzero_ps();
  }
  for (std::int64_t step = 0; step < d_qk; step += kElementsPerStep) {
    const float* line = k_tile + step / kLanes * kLanes * kTileTokens + step % kLanes;
#pragma GCC unroll 8
    for (int k = 0; k < kElementsPerStep; ++k) {
      __m512 q_step[kGroups];
#pragma GCC unroll 2
      for (int g = 0; g < kGroups; ++g) {
        q_step[g] = _mm512_load_ps(q + (g * d_qk + step + k) * kLanes);
      }
#pragma GCC unroll 16
      for (int t = 0; t < kTokens; ++t) {
        const __m512 element = _mm512_set1_ps(line[t * kLanes + k]);
#pragma GCC unroll 2
        for (int g = 0; g < kGroups; ++g) {
          sum[t][g] = _mm512_fmadd_ps(q_step[g], element, sum[t][g]);
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

/// The scheme of decode_bf16.cpp with every product in fp32: AVX-512 on most CPUs cannot multiply
/// fp16, and rounding to bf16 would cost accuracy.
struct Fp16Scheme {
  static constexpr bool kRoundsWeights = false;

  /// q_floats[group][element][lane] <- the query rows, 16 to a group; missing rows are 0.
  static void pack_queries(const DecodeParams& params, std::int64_t groups, const Scratch& s) {
    const std::int64_t d_qk = params.shape.d_qk;
    for (std::int64_t i = 0; i < groups * kLanes; ++i) {
      float* to = s.q_floats + i / kLanes * d_qk * kLanes + i % kLanes;
      const bool exists = i < params.rows.size();
      const std::uint16_t* from = exists ? params.q_row(params.rows.begin + i) : s.zero_row;
      for (std::int64_t k = 0; k < d_qk; ++k) to[k * kLanes] = _cvtsh_ss(from[k]);
    }
  }

  /// Rounds `tokens` up to whole tiles, for which `rows` has padding.
  static void score_block(const DecodeParams& params, std::int64_t groups, int tokens,
                          const Scratch& s, NextLines& next) {
    constexpr int kHalf = kTileTokens / 2;
    const std::int64_t d_qk = params.shape.d_qk;
    const std::int64_t ld = groups * kLanes;
    for (int t = 0; t < tokens; t += kTileTokens) {
      convert_tile(s.rows + t, s.ahead + t, d_qk, s.k_tile, next);
      for (std::int64_t g = 0; g < groups; g += 2) {
        const float* q = s.q_floats + g * d_qk * kLanes;
        float* scores = s.scores + t * ld + g * kLanes;
        if (g + 1 == groups) {
          score_tile<kTileTokens, 1>(s.k_tile, q, d_qk, scores, ld);
        } else {
          score_tile<kHalf, 2>(s.k_tile, q, d_qk, scores, ld);
          score_tile<kHalf, 2>(s.k_tile + kHalf * kLanes, q, d_qk, scores + kHalf * ld, ld);
        }
      }
    }
  }

  /// The weights take the place of the scores.
  [[gnu::always_inline]] static void store_weights(const Scratch& s, std::int64_t ld,
                                                   std::int64_t lane, int t, __m512 p0, __m512 p1) {
    _mm512_store_ps(s.scores + t * ld + lane, p0);
    _mm512_store_ps(s.scores + (t + 1) * ld + lane, p1);
  }

  template <int kRows, int kVectors>
  [[gnu::always_inline]] static void accumulate(const OutTile& tile) {
    __m512 sum[kRows][kVectors];
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 2
      for (int i = 0; i < kVectors; ++i) {
        sum[r][i] = start_sum(tile, r, tile.out_row(r) + i * kLanes, 0xffff);
      }
    }
    const float* weights = tile.scratch.scores + tile.rows[0];
    for (int t = 0; t < tile.tokens; ++t, weights += tile.ld) {
      __m512 values[kVectors];
#pragma GCC unroll 2
      for (int i = 0; i < kVectors; ++i) {
        const auto* from = tile.scratch.rows[t] + tile.dim + i * kLanes;
        values[i] = _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
      }
#pragma GCC unroll 8
      for (int r = 0; r < kRows; ++r) {
        const __m512 weight = _mm512_set1_ps(weights[r]);
#pragma GCC unroll 2
        for (int i = 0; i < kVectors; ++i) {
          sum[r][i] = _mm512_fmadd_ps(values[i], weight, sum[r][i]);
        }
      }
    }
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 2
      for (int i = 0; i < kVectors; ++i) {
        _mm512_storeu_ps(tile.out_row(r) + i * kLanes, sum[r][i]);
      }
    }
  }

  static void finish(const PartialView&) {}
};

}  // namespace

void decode_fp16(const DecodeParams& params, Range chunks, float* nodes,
                 const Scratch& scratch) noexcept {
  decode_with<Fp16Scheme>(params, chunks, nodes, scratch);
}

}  // namespace mla::kernels::avx512
