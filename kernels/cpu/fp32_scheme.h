#pragma once

#include <cstdint>
#include <cstring>
#include <iterator>

#include "core/range.h"
#include "kernels/backend.h"
#include "kernels/cpu/chunk_loop.h"
#include "kernels/cpu/scratch.h"
#include "kernels/cpu/tiles.h"
#include "kernels/product_loop.h"

namespace mla::kernels::cpu {

/// The scheme of all backends that compute in fp32, whatever the cache holds: a block's rows are
/// widened once, a slab of elements at a time, and serve as keys and as values. `Simd` says, beside
/// what its vectors can do, which register tiles suit it:
///   kScoreTokens[n - 1]      most tokens of a tile of scores with n groups of query rows
///   kTileRows, kTileVectors  of a tile of outputs
///   kBlockTokens             a slab of which, in fp32, fits an L1 cache
template <class Simd_>
struct Fp32Scheme {
  using Simd = Simd_;
  using Vector = typename Simd::Vector;
  static constexpr int kLanes = Simd::kLanes;
  static constexpr int kScoreGroups = static_cast<int>(std::size(Simd::kScoreTokens));
  static constexpr int kTileRows = Simd::kTileRows;
  static constexpr int kTileVectors = Simd::kTileVectors;
  static constexpr int kBlockTokens = Simd::kBlockTokens;
  static constexpr int kTokensAhead = kBlockTokens;
  static constexpr bool kRoundsWeights = false;

  static constexpr int kStep = kLanes < 8 ? kLanes : 8;  // elements; d_qk is a multiple of 8
  static constexpr int kWordsPerLine = 32;               // of 16 bits, of a cache line
  /// A slab of 64 tokens is 24 KiB in fp32, of 128 tokens 48 KiB.
  static constexpr int kSlab = 96;
  static constexpr int kColumn = kBlockTokens * kLanes;  // floats of kv[element / lanes]

  /// Elements [first, end) of a row in fp32, at most all lanes, then zeros.
  template <DType kDType>
  [[gnu::always_inline]] static Vector widen(const std::uint16_t* row, std::int64_t first,
                                             std::int64_t end) {
    constexpr std::int64_t kWords = size_of(kDType) / 2;
    const std::uint16_t* from = row + first * kWords;
    if (end - first >= kLanes) return Simd::template widen<kDType>(from);
    std::uint16_t padded[kLanes * kWords] = {};
    std::memcpy(padded, from, (end - first) * kWords * sizeof *from);
    return Simd::template widen<kDType>(padded);
  }

  /// q_floats[group][element][lane] <- the query rows, one to a lane; missing rows are 0.
  template <DType kDType>
  static void pack_rows(const DecodeParams& params, std::int64_t groups, const Scratch& s) {
    const std::int64_t d_qk = params.shape.d_qk;
    for (std::int64_t i = 0; i < groups * kLanes; ++i) {
      const bool exists = i < params.rows.size();
      const std::uint16_t* from = exists ? params.q_row(params.rows.begin + i) : s.zero_row;
      float* to = s.q_floats + i / kLanes * d_qk * kLanes + i % kLanes;
      for (std::int64_t k = 0; k < d_qk; k += kLanes) {
        float elements[kLanes];
        Simd::store(elements, widen<kDType>(from, k, d_qk));
        for (std::int64_t e = 0; e < kLanes && k + e < d_qk; ++e) {
          to[(k + e) * kLanes] = elements[e];
        }
      }
    }
  }

  static void pack_queries(const DecodeParams& params, std::int64_t groups, const Scratch& s) {
    if (params.kv.dtype == DType::kBf16) return pack_rows<DType::kBf16>(params, groups, s);
    if (params.kv.dtype == DType::kFp32) return pack_rows<DType::kFp32>(params, groups, s);
    pack_rows<DType::kFp16>(params, groups, s);
  }

  /// Elements `slab` of the block's cache rows in fp32.
  template <DType kDType>
  static void widen_slab(const Scratch& s, int tokens, Range slab) {
    for (std::int64_t k = slab.begin; k < slab.end; k += kLanes) {
      float* to = s.kv + k / kLanes * kColumn;
      for (int t = 0; t < tokens; ++t, to += kLanes) {
        Simd::store(to, widen<kDType>(s.rows[t], k, slab.end));
      }
    }
  }

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

  /// Takes the scores of the block on by the elements `slab`. The first groups' tiles prefetch the
  /// slab `next`, which is widened next, of this block or of the next one.
  static void score_slab(const DecodeParams& params, const Scratch& s, std::int64_t groups,
                         int tokens, Range slab, Range next, bool first) {
    const std::int64_t d_qk = params.shape.d_qk;
    const std::int64_t ld = groups * kLanes;
    const std::uint16_t* const* next_rows = next.begin == 0 ? s.ahead : s.rows;
    deal(groups, kScoreGroups, [&](std::int64_t group, std::int64_t num_groups) {
      with_constant<kScoreGroups>(num_groups, [&]<int kGroups>() {
        constexpr int kMostTokens = Simd::kScoreTokens[kGroups - 1];
        deal_alike(tokens, kMostTokens, [&](std::int64_t t, std::int64_t size, std::int64_t tiles) {
          const ScoreTile tile{.kv = s.kv + slab.begin / kLanes * kColumn + t * kLanes,
                               .q = s.q_floats + (group * d_qk + slab.begin) * kLanes,
                               .d_qk = d_qk,
                               .elements = slab.size(),
                               .scores = s.scores + t * ld + group * kLanes,
                               .ld = ld,
                               .first = first,
                               .ahead = next_rows + t,
                               .ahead_elements = group == 0 ? next : Range{},
                               .words = size_of(params.kv.dtype) / 2};
          with_constant<kMostTokens>(
              size, [&]<int kTokens>() { score_tiles<kTokens, kGroups>(tile, tiles); });
        });
      });
    });
  }

  static void score_block(const DecodeParams& params, std::int64_t groups, int tokens,
                          const Scratch& s) {
    const std::int64_t d_qk = params.shape.d_qk;
    const std::int64_t zeros = params.q_zeros / kLanes * kLanes;
    const auto slab_from = [&](std::int64_t begin) {
      const std::int64_t stop = begin < zeros ? zeros : d_qk;
      return Range{begin, begin + kSlab < stop ? begin + kSlab : stop};
    };
    for (Range slab = slab_from(0); !slab.empty(); slab = slab_from(slab.end)) {
      if (params.kv.dtype == DType::kBf16) {
        widen_slab<DType::kBf16>(s, tokens, slab);
      } else if (params.kv.dtype == DType::kFp32) {
        widen_slab<DType::kFp32>(s, tokens, slab);
      } else {
        widen_slab<DType::kFp16>(s, tokens, slab);
      }
      if (slab.begin < zeros) continue;
      const Range next = slab_from(slab.end < d_qk ? slab.end : 0);
      score_slab(params, s, groups, tokens, slab, next, slab.begin == zeros);
    }
  }

  /// The weights take the place of the scores.
  [[gnu::always_inline]] static void store_weights(const Scratch& s, std::int64_t ld,
                                                   std::int64_t lane, int t, Vector p0, Vector p1) {
    Simd::store(s.scores + t * ld + lane, p0);
    Simd::store(s.scores + (t + 1) * ld + lane, p1);
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

  template <int kRows, int kVectors>
  static void accumulate(const OutTile& first, std::int64_t tiles) {
    const Scratch& s = first.scratch;
    const std::int64_t row = first.rows[0];  // the others follow
    value_tiles<kRows, kVectors>({.weights = s.scores + row,
                                  .ld = first.ld,
                                  .values = s.kv + first.dim / kLanes * kColumn,
                                  .tokens = first.tokens,
                                  .rescale = s.rescale + row,
                                  .out = first.out_row(0),
                                  .d_v = first.d_v,
                                  .first = *first.earlier == Earlier::kNone},
                                 tiles);
  }

  static void finish(const PartialView&) {}

  /// `HostBackend::run_products`, with as many sums as a tile has.
  static double run_products(std::int64_t count) {
    return product_loop<kTileRows * kTileVectors>(
        count, 2 * kLanes, Vector{}, Simd::broadcast(0.5F),
        [](Vector sum, Vector half) { return Simd::fma(sum, half, half); });
  }
};

}  // namespace mla::kernels::cpu
