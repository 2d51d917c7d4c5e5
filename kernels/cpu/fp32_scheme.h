#pragma once

#include <cstdint>
#include <cstring>
#include <iterator>

#include "core/range.h"
#include "kernels/backend.h"
#include "kernels/cpu/chunk_loop.h"
#include "kernels/cpu/fp32_tiles.h"
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
  using Tiles = Fp32Tiles<Simd>;
  using ScoreTile = typename Tiles::ScoreTile;
  using ValueTile = typename Tiles::ValueTile;
  static constexpr int kLanes = Simd::kLanes;
  static constexpr int kScoreGroups = static_cast<int>(std::size(Simd::kScoreTokens));
  static constexpr int kTileRows = Simd::kTileRows;
  static constexpr int kTileVectors = Simd::kTileVectors;
  static constexpr int kBlockTokens = Simd::kBlockTokens;
  static constexpr int kTokensAhead = kBlockTokens;
  static constexpr bool kRoundsWeights = false;

  /// A slab of 64 tokens is 24 KiB in fp32, of 128 tokens 48 KiB.
  static constexpr int kSlab = 96;
  static constexpr int kColumn = Tiles::kColumn;

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
          with_constant<kMostTokens>(size, [&]<int kTokens>() {
            Tiles::template score_tiles<kTokens, kGroups>(tile, tiles);
          });
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

  /// o <- rescale o + weights V, for a block of `tokens` tokens.
  static void accumulate_block(const Scratch& s, int tokens, std::int64_t ld, int /*num_heavy*/,
                               const PartialView& result, bool first) {
    deal(result.d_v / kLanes, kTileVectors, [&](std::int64_t vector, std::int64_t vectors) {
      with_constant<kTileVectors>(vectors, [&]<int kVectors>() {
        deal_alike(result.rows, kTileRows,
                   [&](std::int64_t row, std::int64_t rows, std::int64_t tiles) {
                     const ValueTile tile{.weights = s.scores + row,
                                          .ld = ld,
                                          .values = s.kv + vector * kColumn,
                                          .tokens = tokens,
                                          .rescale = s.rescale + row,
                                          .out = result.o + row * result.d_v + vector * kLanes,
                                          .d_v = result.d_v,
                                          .first = first};
                     with_constant<kTileRows>(rows, [&]<int kRows>() {
                       Tiles::template value_tiles<kRows, kVectors>(tile, tiles);
                     });
                   });
      });
    });
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
