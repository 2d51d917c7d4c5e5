#pragma once

#include <cstdint>

#include "core/range.h"

// Register tiles of the fp32 scheme: where its time goes. Tiles of one size are computed in one
// loop, whose body is inlined and gets what it works on by value, in a struct that no store can
// change: so addresses are computed once, and the next tile's loads are issued while the last
// products of this one are still under way.

namespace mla::kernels::cpu {

/// See Fp32Scheme about `Simd`.
template <class Simd>
struct Fp32Tiles {
  using Vector = typename Simd::Vector;
  static constexpr int kLanes = Simd::kLanes;
  static constexpr int kColumn = Simd::kBlockTokens * kLanes;  ///< floats of kv[element / lanes]

  static constexpr int kStep = kLanes < 8 ? kLanes : 8;  // elements; d_qk is a multiple of 8
  static constexpr int kWordsPerLine = 32;               // of 16 bits, of a cache line

  /// What a register tile of scores is made of: some tokens and groups of query rows, and a slab of
  /// their elements.
  struct ScoreTile {
    const float* kv;  ///< [element / lanes][block tokens][lanes] from the tile's first token on
    const float* q;   ///< [group][d_qk][lanes] from the slab's first element on
    std::int64_t d_qk;
    std::int64_t elements;
    float* scores;  ///< [token][ld]
    std::int64_t ld;
    bool first;                         ///< slab: there are no sums to go on with
    const std::uint16_t* const* ahead;  ///< as many rows, to prefetch
    Range ahead_elements;               ///< of them
    std::int64_t words;                 ///< of 16 bits, of an element there

    [[gnu::always_inline]] void advance(int tokens) {
      kv += tokens * kLanes;
      scores += tokens * ld;
      ahead += tokens;
    }
  };

  /// Prefetches this step's share of the elements ahead, which may be more or fewer than the
  /// tile's: a few lines at a time, as many at once would fill the queue of misses and stall the
  /// loads. Of the steps that share a line, a power of two, each asks for it in other rows.
  template <int kTokens>
  [[gnu::always_inline]] static void prefetch_ahead(const ScoreTile& tile, std::int64_t step,
                                                    std::int64_t steps_per_line) {
    for (std::int64_t e = step; e < tile.ahead_elements.size(); e += tile.elements) {
      const std::int64_t first = e / kStep & (steps_per_line - 1);
      for (std::int64_t t = first; t < kTokens; t += steps_per_line) {
        __builtin_prefetch(tile.ahead[t] + (tile.ahead_elements.begin + e) * tile.words, 0, 3);
      }
    }
  }

  /// scores[token][lane] += the products of the slab's elements, in order.
  template <int kTokens, int kGroups>
  [[gnu::always_inline]] static void score_tile(const ScoreTile& tile) {
    Vector sum[kTokens][kGroups];
    const float* earlier = tile.scores;
#pragma GCC unroll 32
    for (int t = 0; t < kTokens; ++t, earlier += tile.ld) {
#pragma GCC unroll 4
      for (int g = 0; g < kGroups; ++g) {
        sum[t][g] = tile.first ? Vector{} : Simd::load(earlier + g * kLanes);
      }
    }
    const std::int64_t steps_per_line =
        (tile.words == 1 ? kWordsPerLine : kWordsPerLine / 2) / kStep;
    for (std::int64_t step = 0; step < tile.elements; step += kStep) {
      prefetch_ahead<kTokens>(tile, step, steps_per_line);
      const float* column = tile.kv + step / kLanes * kColumn + step % kLanes;
      // Unrolled, GCC 12 would load all the broadcasts of vectors without intrinsics first, and
      // spill.
#pragma GCC unroll 1
      for (int k = 0; k < kStep; ++k) {
        Vector query[kGroups];
#pragma GCC unroll 4
        for (int g = 0; g < kGroups; ++g) {
          query[g] = Simd::load(tile.q + (g * tile.d_qk + step + k) * kLanes);
        }
#pragma GCC unroll 32
        for (int t = 0; t < kTokens; ++t) {
          const float* element = column + t * kLanes + k;
          const Vector key = Simd::broadcast(*element);
#pragma GCC unroll 4
          for (int g = 0; g < kGroups; ++g) sum[t][g] = Simd::fma(query[g], key, sum[t][g]);
        }
      }
    }
    float* scores = tile.scores;
#pragma GCC unroll 32
    for (int t = 0; t < kTokens; ++t, scores += tile.ld) {
#pragma GCC unroll 4
      for (int g = 0; g < kGroups; ++g) {
        Simd::store(scores + g * kLanes, sum[t][g]);
      }
    }
  }

  template <int kTokens, int kGroups>
  [[gnu::noinline]] static void score_tiles(ScoreTile tile, std::int64_t tiles) {
    for (; tiles > 0; --tiles, tile.advance(kTokens)) score_tile<kTokens, kGroups>(tile);
  }

  /// What a register tile of outputs is made of: some query rows, and vectors of value elements.
  struct ValueTile {
    const float* weights;  ///< [token][ld] from the tile's first row on
    std::int64_t ld;
    const float* values;  ///< [vector][block tokens][lanes]
    std::int64_t tokens;
    const float* rescale;  ///< [row]
    float* out;            ///< [row][d_v]
    std::int64_t d_v;
    bool first;  ///< block: there are no outputs to go on with

    [[gnu::always_inline]] void advance(int rows) {
      weights += rows;
      rescale += rows;
      out += rows * d_v;
    }
  };

  /// Prefetches the outputs of the tile that comes next, rows that no hardware expects; with wide
  /// vectors, whose tile has two lines of a row or three, that costs more than it saves.
  /// Where no maximum moved, `rescale` is exactly 1 and changes no bit.
  template <int kRows, int kVectors>
  [[gnu::always_inline]] static void value_tile(const ValueTile& tile) {
    Vector sum[kRows][kVectors];
    const float* earlier = tile.out;
#pragma GCC unroll 32
    for (int r = 0; r < kRows; ++r, earlier += tile.d_v) {
      const Vector rescale = Simd::broadcast(tile.rescale[r]);
#pragma GCC unroll 4
      for (int i = 0; i < kVectors; ++i) {
        sum[r][i] = tile.first ? Vector{} : Simd::load(earlier + i * kLanes) * rescale;
      }
    }
    if constexpr (kLanes < 16) {
      for (int r = 0; r < kRows; ++r) {
        for (int i = 0; i < kVectors; ++i) {
          __builtin_prefetch(tile.out + (kRows + r) * tile.d_v + i * kLanes, 1, 3);
        }
      }
    }
    const float* weights = tile.weights;
    const float* values = tile.values;
    for (std::int64_t t = 0; t < tile.tokens; ++t, weights += tile.ld, values += kLanes) {
      Vector value[kVectors];
#pragma GCC unroll 4
      for (int i = 0; i < kVectors; ++i) value[i] = Simd::load(values + i * kColumn);
#pragma GCC unroll 32
      for (int r = 0; r < kRows; ++r) {
        const Vector weight = Simd::broadcast(weights[r]);
#pragma GCC unroll 4
        for (int i = 0; i < kVectors; ++i) sum[r][i] = Simd::fma(value[i], weight, sum[r][i]);
      }
    }
    float* out = tile.out;
#pragma GCC unroll 32
    for (int r = 0; r < kRows; ++r, out += tile.d_v) {
#pragma GCC unroll 4
      for (int i = 0; i < kVectors; ++i) {
        Simd::store(out + i * kLanes, sum[r][i]);
      }
    }
  }

  template <int kRows, int kVectors>
  [[gnu::noinline]] static void value_tiles(ValueTile tile, std::int64_t tiles) {
    for (; tiles > 0; --tiles, tile.advance(kRows)) value_tile<kRows, kVectors>(tile);
  }
};

}  // namespace mla::kernels::cpu
