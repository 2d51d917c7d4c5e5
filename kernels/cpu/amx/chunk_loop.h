#pragma once

#include <cstdint>
#include <initializer_list>

#include <immintrin.h>

#include "kernels/backend.h"
#include "kernels/cpu/amx/repack.h"
#include "kernels/cpu/amx/scratch.h"
#include "kernels/cpu/amx/sums.h"
#include "kernels/cpu/amx/weights.h"
#include "kernels/fold_decode.h"
#include "kernels/token_rows.h"

// The scheme for bf16 caches; docs/kernels.md draws it. Included only by files compiled for AMX and
// AVX-512; `Tiles` is a type of an unnamed namespace, so that nothing here is linked elsewhere.

namespace mla::kernels::amx {

/// Lines of the next block prefetched at each step of the work on this one, a step being four tile
/// products or what takes as long: as many as spread a block evenly over 64 steps of interleaving
/// values and 92 steps for each group.
constexpr std::int64_t lines_per_step(std::int64_t groups) {
  return ceil_div(27, groups + 1);
}

/// scores[group][token][lane] of some tiles of tokens and groups, of 16 each. The elements of the
/// block's second half of tokens are summed from the last to the first.
template <class Tiles, int kTokenTiles, int kGroups>
[[gnu::always_inline]] inline void score_tiles(const Operand* keys, const Scratch& s,
                                               std::int64_t group, int token, std::int64_t steps,
                                               Prefetcher& ahead) {
  using Product = Sums<Tiles, kTokenTiles, kGroups>;
  const auto turned = [&](const Operand& tiles) __attribute__((always_inline)) {
    return token < kTurnTokens ? tiles : backwards(tiles, steps);
  };
  Operand k[kTokenTiles];
  Operand q[kGroups];
  for (int i = 0; i < kTokenTiles; ++i) k[i] = turned(keys[token / kTileRows + i]);
  for (int j = 0; j < kGroups; ++j) {
    q[j] = turned(packed_tiles(s.queries + (group + j) * steps * kTileWords));
  }
  Product::zero();
  Product::multiply_add(
      k, q, steps, [&]() __attribute__((always_inline)) { ahead.advance(); });
  Product::store([&](int i, int j) {
    return s.scores + ((group + j) * kBlockTokens + token + i * kTileRows) * kLanes;
  });
}

/// The scores of kGroups groups and a block of `tokens` tokens, whole steps. Takes the halves of
/// the block in turn: one ends with the tiles of queries that the other begins with, so they are in
/// L1.
template <class Tiles, int kGroups>
[[gnu::always_inline]] inline void score_groups(const Operand* keys, const Scratch& s,
                                                std::int64_t group, int tokens, std::int64_t steps,
                                                Prefetcher& ahead) {
  constexpr int kTokenTiles = 4 / kGroups;
  for (int t = 0; t < kTurnTokens; t += kTokenTiles * kTileRows) {
    for (const int token : {t, kTurnTokens + t}) {
      if (token >= tokens) continue;
      score_tiles<Tiles, kTokenTiles, kGroups>(keys, s, group, token, steps, ahead);
    }
  }
}

/// The scores of a block of `tokens` tokens, whole steps. Missing tokens, up to whole tiles, are
/// rows of zeros.
template <class Tiles>
void score_block(const Scratch& s, std::int64_t d_qk, std::int64_t groups, int tokens,
                 Prefetcher& ahead) {
  Operand keys[kKeyTiles];
  for (int t = 0; t < round_up(tokens, 4 * kTileRows); t += kTileRows) {
    keys[t / kTileRows] = key_tiles(s, t, d_qk);
  }
  const std::int64_t steps = ceil_div(d_qk, kStep);
  std::int64_t group = 0;
  for (; group + 1 < groups; group += 2) {
    score_groups<Tiles, 2>(keys, s, group, tokens, steps, ahead);
  }
  if (group < groups) score_groups<Tiles, 1>(keys, s, group, tokens, steps, ahead);
}

/// sums <- weights * values for kGroups tiles of rows, [tile][step] at `weights`, and kValues tiles
/// of value elements, from the interleaved one `value` on.
template <class Tiles, int kGroups, int kValues>
[[gnu::always_inline]] inline void weigh_values(const Scratch& s, const std::uint32_t* weights,
                                                int value, std::int64_t steps, Prefetcher& ahead) {
  using Product = Sums<Tiles, kGroups, kValues>;
  Operand p[kGroups];
  Operand v[kValues];
  for (int i = 0; i < kGroups; ++i) p[i] = packed_tiles(weights + i * kWeightSteps * kTileWords);
  for (int j = 0; j < kValues; ++j) {
    v[j] = packed_tiles(s.values + (value + j) * kWeightSteps * kTileWords);
  }
  Product::zero();
  Product::multiply_add(
      p, v, steps, [&]() __attribute__((always_inline)) { ahead.advance(); });
  Product::store([&](int i, int j) { return s.sums + (i * kValues + j) * kTileWords; });
}

/// o <- rescale * o + weights * values for some groups and kValues tiles of value elements, from
/// `dim` + 16 * `value` on.
template <class Tiles, int kGroups, int kValues>
[[gnu::always_inline]] inline void accumulate_tiles(const Scratch& s, std::int64_t dim, int value,
                                                    std::int64_t group, std::int64_t steps,
                                                    bool first, const PartialView& result,
                                                    Prefetcher& ahead) {
  weigh_values<Tiles, kGroups, kValues>(s, s.weights + group * kWeightSteps * kTileWords, value,
                                        steps, ahead);
  dim += value * 16;
  for (int i = 0; i < kGroups; ++i) {
    const std::int64_t begin = (group + i) * kLanes;
    const std::int64_t end = begin + kLanes < result.rows ? begin + kLanes : result.rows;
    const float* sums = s.sums + i * kValues * kTileWords;
    for (std::int64_t row = begin; row < end; ++row, sums += 16) {
      add_outputs<kValues>(sums, result.d_v - dim, first, s.rescale[row],
                           result.o + row * result.d_v + dim);
    }
  }
}

/// o <- o + residuals * values for the heavy rows and the interleaved value elements, from `dim`
/// on.
template <class Tiles>
void add_residuals(const Scratch& s, int heavy, std::int64_t dim, std::int64_t steps,
                   const PartialView& result, Prefetcher& ahead) {
  for (int place = 0; place < heavy; place += kTileRows) {
    weigh_values<Tiles, 1, kValueTiles>(
        s, s.residuals + place / kTileRows * kWeightSteps * kTileWords, 0, steps, ahead);
    const int end = place + kTileRows < heavy ? place + kTileRows : heavy;
    for (int i = place; i < end; ++i) {
      add_outputs<kValueTiles>(s.sums + i % kTileRows * 16, result.d_v - dim, false, 1,
                               result.o + s.heavy_rows[i] * result.d_v + dim);
    }
  }
}

/// o <- rescale * o + weights * V for a block of `tokens` tokens, whole steps.
template <class Tiles>
void accumulate_block(const Scratch& s, std::int64_t groups, int tokens, bool first, int heavy,
                      const PartialView& result, Prefetcher& ahead) {
  const std::int64_t steps = tokens / kStep;
  for (std::int64_t dim = 0; dim < result.d_v; dim += kValueTiles * 16) {
    interleave_values(s, tokens, dim, result.d_v, ahead);
    std::int64_t group = 0;
    for (; group + 1 < groups; group += 2) {
      for (int value = 0; value < kValueTiles; value += 2) {
        accumulate_tiles<Tiles, 2, 2>(s, dim, value, group, steps, first, result, ahead);
      }
    }
    if (group < groups) {
      accumulate_tiles<Tiles, 1, kValueTiles>(s, dim, 0, group, steps, first, result, ahead);
    }
    add_residuals<Tiles>(s, heavy, dim, steps, result, ahead);
  }
}

/// Computes the partial of one chunk, the keys `tokens`, a block at a time. The blocks are counted
/// from the chunk's begin, so where the running maximum is looked at never depends on who computes
/// the chunk. Rows up to token `limit` are prefetched one block ahead.
template <class Tiles>
void compute_chunk(const DecodeParams& params, Range tokens, std::int64_t limit, const Scratch& s,
                   const PartialView& result) {
  const MlaShape& shape = params.shape;
  const std::int64_t groups = ceil_div(result.rows, kLanes);
  for (std::int64_t lane = 0; lane < groups * kLanes; lane += kLanes) {
    _mm512_storeu_ps(result.m_log2 + lane, _mm512_set1_ps(kEmptyM));
    _mm512_storeu_ps(result.l + lane, _mm512_setzero_ps());
  }
  find_visible_ends(params, tokens, {s.visible, static_cast<std::size_t>(groups * kLanes)});
  for (std::int64_t begin = tokens.begin; begin < tokens.end; begin += kBlockTokens) {
    const std::int64_t end = begin + kBlockTokens < tokens.end ? begin + kBlockTokens : tokens.end;
    const std::int64_t ahead_end = end + kBlockTokens < limit ? end + kBlockTokens : limit;
    find_token_rows(params, {begin, end}, s.zero_row, {s.rows, kBlockTokens});
    find_token_rows(params, {end, ahead_end}, s.zero_row, {s.ahead, kBlockTokens});
    Prefetcher ahead(s.ahead, ahead_end - end, shape.d_qk * 2, lines_per_step(groups));

    const int whole_steps = static_cast<int>(round_up(end - begin, kStep));
    score_block<Tiles>(s, shape.d_qk, groups, whole_steps, ahead);
    int heavy = 0;
    for (std::int64_t group = 0; group < groups; ++group) {
      heavy = weigh_group(s, group, whole_steps, begin - tokens.begin, params.scale_log2, result,
                          heavy, ahead);
    }
    accumulate_block<Tiles>(s, groups, whole_steps, begin == tokens.begin, heavy, result, ahead);
    ahead.finish();
  }
}

/// `HostBackend::decode` for a bf16 cache.
template <class Tiles>
void decode_with(const DecodeParams& params, Range chunks, float* nodes, const Scratch& s) {
  if (chunks.empty()) return;
  const std::int64_t limit = chunk_token_range(params, chunks.end - 1).end;
  const std::int64_t begin = chunk_token_range(params, chunks.begin).begin;
  const std::int64_t end = begin + kBlockTokens < limit ? begin + kBlockTokens : limit;
  find_token_rows(params, {begin, end}, s.zero_row, {s.rows, kBlockTokens});
  Prefetcher(s.rows, end - begin, params.shape.d_qk * 2, 1).finish();

  pack_queries(params, s);
  Tiles::configure();
  fold_decode(params, chunks, nodes, s.spill, [&](Range tokens, const PartialView& result) {
    compute_chunk<Tiles>(params, tokens, limit, s, result);
  });
  Tiles::release();
}

}  // namespace mla::kernels::amx
