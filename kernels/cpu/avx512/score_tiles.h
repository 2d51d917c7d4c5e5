#pragma once

#include <cstdint>
#include <cstring>

#include <immintrin.h>

// Register tiles of scores, Q K^T in bf16. Included only by files compiled for AVX512-BF16; forced
// inline, so that no copy of it can be linked into code for other CPUs.

namespace mla::kernels::avx512 {

inline constexpr int kPairsPerStep = 4;  ///< of elements; d_qk is a multiple of 8

/// What a register tile of scores is made of.
struct ScoreTile {
  const std::uint16_t* const* rows;  ///< of its tokens
  const std::uint32_t* q;            ///< [group][pairs][16 lanes], from its first group on
  std::int64_t begin;                ///< pair of elements, a whole step: those before are 0 in q
  std::int64_t pairs;                ///< of elements
  float* scores;                     ///< [token][ld], at its first token and group
  std::int64_t ld;
  const std::uint16_t* const* ahead;  ///< as many rows of tokens to come, to prefetch, or null
};

/// Asks for the rows `ahead` of a tile to be brought into the caches, line after line, a few lines
/// with every step of the tile's loop: with kLines a quarter of its tokens they are all asked for
/// in the end. What is too much for a row's end is taken for the next row's begin, where it mostly
/// lies.
template <int kLines>
class RowsAhead {
 public:
  [[gnu::always_inline]] explicit RowsAhead(const ScoreTile& tile)
      : next_row_(tile.ahead), row_bytes_(4 * tile.pairs) {}

  [[gnu::always_inline]] void advance() {
    if (next_row_ == nullptr) return;
    while (left_ <= 0) {
      line_ = reinterpret_cast<const char*>(*next_row_++) - left_;
      left_ += row_bytes_;
    }
#pragma GCC unroll 8
    for (int i = 0; i < kLines; ++i) _mm_prefetch(line_ + i * kLineBytes, _MM_HINT_T0);
    line_ += kLines * kLineBytes;
    left_ -= kLines * kLineBytes;
  }

 private:
  static constexpr int kLineBytes = 64;

  const std::uint16_t* const* next_row_;
  std::int64_t row_bytes_;
  const char* line_ = nullptr;
  std::int64_t left_ = 0;  // bytes of the row from `line_` on; negative: past its end
};

/// A pair of bf16 elements in every lane.
[[gnu::always_inline]] inline __m512bh broadcast_pair(const void* pair) {
  std::int32_t bits;
  std::memcpy(&bits, pair, sizeof bits);
  return reinterpret_cast<__m512bh>(_mm512_set1_epi32(bits));
}

/// 8 tokens and two groups of query rows: lanes are query rows, K is broadcast from its own row.
[[gnu::always_inline]] inline void score_two_groups(const ScoreTile& tile) {
  constexpr int kTokens = 8;
  RowsAhead<kTokens / 4> ahead(tile);
  __m512 sum[kTokens][2];
  for (auto& token : sum) token[0] = token[1] = _mm512_setzero_ps();
  for (std::int64_t step = tile.begin; step < tile.pairs; step += kPairsPerStep) {
    ahead.advance();
    __m512bh query[kPairsPerStep][2];
#pragma GCC unroll 4
    for (int k = 0; k < kPairsPerStep; ++k) {
#pragma GCC unroll 2
      for (int g = 0; g < 2; ++g) {
        query[k][g] = reinterpret_cast<__m512bh>(
            _mm512_load_si512(tile.q + (g * tile.pairs + step + k) * 16));
      }
    }
#pragma GCC unroll 8
    for (int t = 0; t < kTokens; ++t) {
      const std::uint16_t* row = tile.rows[t] + 2 * step;
#pragma GCC unroll 4
      for (int k = 0; k < kPairsPerStep; ++k) {
        const __m512bh key = broadcast_pair(row + 2 * k);
        sum[t][0] = _mm512_dpbf16_ps(sum[t][0], query[k][0], key);
        sum[t][1] = _mm512_dpbf16_ps(sum[t][1], query[k][1], key);
      }
    }
  }
#pragma GCC unroll 8
  for (int t = 0; t < kTokens; ++t) {
    _mm512_store_ps(tile.scores + t * tile.ld, sum[t][0]);
    _mm512_store_ps(tile.scores + t * tile.ld + 16, sum[t][1]);
  }
}

/// Four pairs of elements of each of four tokens, a token in each 128 bits.
[[gnu::always_inline]] inline __m512i load_keys(const std::uint16_t* const* rows,
                                                std::int64_t pair) {
  const auto load = [&](int t) __attribute__((always_inline)) {
    return _mm_loadu_si128(reinterpret_cast<const __m128i*>(rows[t] + 2 * pair));
  };
  const __m256i low = _mm256_inserti128_si256(_mm256_castsi128_si256(load(0)), load(1), 1);
  const __m256i high = _mm256_inserti128_si256(_mm256_castsi128_si256(load(2)), load(3), 1);
  return _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
}

/// sum[t][r] += the products of pair kPair of `keys` with that of the query rows `q`.
template <int kPair, int kTokenQuads, int kRowQuads>
[[gnu::always_inline]] inline void multiply_quads(const __m512i (&keys)[kTokenQuads],
                                                  const std::uint32_t* q,
                                                  __m512 (&sum)[kTokenQuads][4]) {
  __m512bh query[kRowQuads];
#pragma GCC unroll 4
  for (int r = 0; r < kRowQuads; ++r) {
    const auto* rows = reinterpret_cast<const __m128i*>(q + kPair * 16 + 4 * r);
    query[r] = reinterpret_cast<__m512bh>(_mm512_broadcast_i32x4(_mm_load_si128(rows)));
  }
#pragma GCC unroll 8
  for (int t = 0; t < kTokenQuads; ++t) {
    constexpr auto kSpread = static_cast<_MM_PERM_ENUM>(kPair * 0x55);
    const auto key = reinterpret_cast<__m512bh>(_mm512_shuffle_epi32(keys[t], kSpread));
#pragma GCC unroll 4
    for (int r = 0; r < kRowQuads; ++r) {
      sum[t][r] = _mm512_dpbf16_ps(sum[t][r], query[r], key);
    }
  }
}

/// 4 kTokenQuads tokens and the first 4 kRowQuads query rows of one group. Lanes are 4 tokens times
/// 4 rows: a lone group in all lanes would need a broadcast for every product, more loads than the
/// products wait for.
template <int kTokenQuads, int kRowQuads>
[[gnu::always_inline]] inline void score_quads(const ScoreTile& tile) {
  RowsAhead<kTokenQuads> ahead(tile);
  __m512 sum[kTokenQuads][4];
#pragma GCC unroll 8
  for (int t = 0; t < kTokenQuads; ++t) {
#pragma GCC unroll 4
    for (int r = 0; r < 4; ++r) sum[t][r] = _mm512_setzero_ps();
  }
  for (std::int64_t step = tile.begin; step < tile.pairs; step += kPairsPerStep) {
    ahead.advance();
    __m512i keys[kTokenQuads];
#pragma GCC unroll 8
    for (int t = 0; t < kTokenQuads; ++t) keys[t] = load_keys(tile.rows + 4 * t, step);
    const std::uint32_t* q = tile.q + step * 16;
    multiply_quads<0, kTokenQuads, kRowQuads>(keys, q, sum);
    multiply_quads<1, kTokenQuads, kRowQuads>(keys, q, sum);
    multiply_quads<2, kTokenQuads, kRowQuads>(keys, q, sum);
    multiply_quads<3, kTokenQuads, kRowQuads>(keys, q, sum);
  }
  // [rows / 4][4 tokens][4 rows] -> [4 tokens][16 rows]
#pragma GCC unroll 8
  for (int t = 0; t < kTokenQuads; ++t) {
    const __m512 a = _mm512_shuffle_f32x4(sum[t][0], sum[t][1], 0x44);
    const __m512 b = _mm512_shuffle_f32x4(sum[t][2], sum[t][3], 0x44);
    const __m512 c = _mm512_shuffle_f32x4(sum[t][0], sum[t][1], 0xee);
    const __m512 d = _mm512_shuffle_f32x4(sum[t][2], sum[t][3], 0xee);
    float* to = tile.scores + 4 * t * tile.ld;
    _mm512_store_ps(to, _mm512_shuffle_f32x4(a, b, 0x88));
    _mm512_store_ps(to + tile.ld, _mm512_shuffle_f32x4(a, b, 0xdd));
    _mm512_store_ps(to + 2 * tile.ld, _mm512_shuffle_f32x4(c, d, 0x88));
    _mm512_store_ps(to + 3 * tile.ld, _mm512_shuffle_f32x4(c, d, 0xdd));
  }
}

}  // namespace mla::kernels::avx512
