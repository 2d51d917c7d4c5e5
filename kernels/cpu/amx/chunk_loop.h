#pragma once

#include <cstdint>
#include <initializer_list>
#include <type_traits>

#include <immintrin.h>

#include "kernels/backend.h"
#include "kernels/cpu/amx/outputs.h"
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
/// products: as many as spread a block evenly.
[[gnu::always_inline]] inline std::int64_t lines_per_step(const MlaShape& shape,
                                                          std::int64_t groups) {
  const std::int64_t dots = ceil_div(shape.d_qk, kStep);
  const std::int64_t panels = ceil_div(shape.d_v, kPanel);
  const std::int64_t steps = groups / 2 * dots + groups % 2 * dots / 2 + (groups + 1) / 2 * panels;
  return ceil_div(kStep * ceil_div(shape.d_qk * 2, 64), steps);
}

/// scores[token][lane] of some tiles of tokens and groups, of 16 each. The elements of the
/// block's second half of tokens are summed from the last to the first.
template <class Tiles, int kTokenTiles, int kGroups>
[[gnu::always_inline]] inline void score_tiles(const Operand* keys, const Scratch& s,
                                               std::int64_t group, int token, std::int64_t steps,
                                               BlockSoftmax<Tiles>& softmax, Prefetcher& ahead) {
  using Product = Sums<Tiles, kTokenTiles, kGroups>;
  const auto turned = [&](const Operand& tiles) __attribute__((always_inline)) {
    return token < kTurnTokens ? tiles : backwards(tiles, steps);
  };
  // All tokens use the queries, and a pair of groups uses keys once. A lone group was slower so.
  std::conditional_t<(kGroups > 1), StreamedOperand, Operand> k[kTokenTiles];
  Operand q[kGroups];
  for (int i = 0; i < kTokenTiles; ++i) k[i] = {turned(keys[token / kTileRows + i])};
  for (int j = 0; j < kGroups; ++j) {
    q[j] = turned(packed_tiles(s.queries + (group + j) * steps * kTileWords));
  }
  Product::zero();
  Product::multiply_add(
      k, q, steps, [&]() __attribute__((always_inline)) {
        ahead.advance();
        softmax.advance();
      });
  Product::store(
      [&](int i, int j) { return softmax.scores(group + j) + (token + i * kTileRows) * kLanes; });
}

/// The scores of kGroups groups and a block of `tokens` tokens, whole steps. Takes the halves of
/// the block in turn: one ends with the tiles of queries that the other begins with, so they are in
/// L1. Meanwhile the softmax of the groups before goes on.
template <class Tiles, int kGroups>
[[gnu::always_inline]] inline void score_groups(const Operand* keys, const Scratch& s,
                                                std::int64_t group, int tokens, std::int64_t steps,
                                                BlockSoftmax<Tiles>& softmax, Prefetcher& ahead) {
  constexpr int kTokens = 4 / kGroups * kTileRows;
  softmax.finish(group + kGroups - kScoredGroups);
  for (int t = 0; t < kTurnTokens; t += kTokens) {
    for (const int token : {t, kTurnTokens + t}) {
      if (token >= tokens) continue;
      score_tiles<Tiles, 4 / kGroups, kGroups>(keys, s, group, token, steps, softmax, ahead);
    }
  }
  softmax.set_scored(group + kGroups);
}

/// The weights of a block of `tokens` tokens, whole steps. Missing tokens, up to whole tiles, are
/// rows of zeros.
template <class Tiles>
void weigh_block(const Scratch& s, std::int64_t d_qk, std::int64_t groups, int tokens,
                 BlockSoftmax<Tiles>& softmax, Prefetcher& ahead) {
  Operand keys[kKeyTiles];
  for (int t = 0; t < round_up(tokens, 4 * kTileRows); t += kTileRows) {
    keys[t / kTileRows] = key_tiles(s, t, d_qk);
  }
  const std::int64_t steps = ceil_div(d_qk, kStep);
  std::int64_t group = 0;
  for (; group + 1 < groups; group += 2) {
    score_groups<Tiles, 2>(keys, s, group, tokens, steps, softmax, ahead);
  }
  if (group < groups) score_groups<Tiles, 1>(keys, s, group, tokens, steps, softmax, ahead);
  softmax.finish(groups);
}

/// o <- o + weights * values for kGroups groups and kValues tiles of value elements from `dim` on;
/// `first`: o <- weights * values. Meanwhile the next panel is interleaved.
template <class Tiles, int kGroups, int kValues>
[[gnu::always_inline]] inline void accumulate_tiles(const Scratch& s, std::int64_t dim,
                                                    std::int64_t group, std::int64_t steps,
                                                    bool first, const Outputs& outputs,
                                                    ValueInterleaver& values, Prefetcher& ahead) {
  using Product = Sums<Tiles, kGroups, kValues>;
  StreamedOperand p[kGroups];
  Operand v[kValues];
  float* o[kGroups];
  for (int i = 0; i < kGroups; ++i) {
    p[i] = {packed_tiles(s.weights + (group + i) * kWeightSteps * kTileWords)};
    o[i] = outputs.row((group + i) * kLanes) + dim;
  }
  for (int j = 0; j < kValues; ++j) {
    v[j] = packed_tiles(values.panel(dim) + j * kWeightSteps * kTileWords);
  }
  const auto tile = [&](int i, int j) { return o[i] + j * 16; };
  const std::int64_t row_bytes = outputs.d_v() * 4;
  if (first) {
    Product::zero();
  } else {
    Product::load(tile, row_bytes);
  }
  Product::multiply_add(
      p, v, steps, [&]() __attribute__((always_inline)) {
        ahead.advance();
        values.advance();
      });
  Product::store(tile, row_bytes);
}

/// o <- o + residuals * values for the heavy rows and kValues tiles of value elements from `dim`
/// on.
template <class Tiles, int kValues>
void add_residuals(const Scratch& s, int heavy, std::int64_t dim, std::int64_t steps,
                   const Outputs& outputs, const ValueInterleaver& values) {
  using Product = Sums<Tiles, 1, kValues>;
  Operand v[kValues];
  for (int j = 0; j < kValues; ++j) {
    v[j] = packed_tiles(values.panel(dim) + j * kWeightSteps * kTileWords);
  }
  for (int place = 0; place < heavy; place += kTileRows) {
    const Operand p[1] = {
        packed_tiles(s.residuals + place / kTileRows * kWeightSteps * kTileWords)};
    Product::zero();
    Product::multiply_add(p, v, steps, [] {});
    Product::store([&](int, int j) { return s.sums + j * kTileWords; });
    const int end = place + kTileRows < heavy ? place + kTileRows : heavy;
    for (int i = place; i < end; ++i) {
      float* o = outputs.row(s.heavy_rows[i]) + dim;
      for (int j = 0; j < kValues; ++j, o += 16) {
        const __m512 sum = _mm512_load_ps(s.sums + j * kTileWords + i % kTileRows * 16);
        _mm512_storeu_ps(o, _mm512_add_ps(_mm512_loadu_ps(o), sum));
      }
    }
  }
}

/// o <- o + weights * V for a panel of kValues tiles of value elements from `dim` on.
template <class Tiles, int kValues>
void accumulate_panel(const Scratch& s, std::int64_t groups, std::int64_t steps, bool first,
                      int heavy, std::int64_t dim, const Outputs& outputs, ValueInterleaver& values,
                      Prefetcher& ahead) {
  std::int64_t group = 0;
  for (; group + 1 < groups; group += 2) {
    accumulate_tiles<Tiles, 2, kValues>(s, dim, group, steps, first, outputs, values, ahead);
  }
  if (group < groups) {
    accumulate_tiles<Tiles, 1, kValues>(s, dim, group, steps, first, outputs, values, ahead);
  }
  add_residuals<Tiles, kValues>(s, heavy, dim, steps, outputs, values);
}

/// o <- o + weights * V for a block of `tokens` tokens, whole steps.
template <class Tiles>
void accumulate_block(const Scratch& s, std::int64_t groups, int tokens, bool first, int heavy,
                      const Outputs& outputs, Prefetcher& ahead) {
  const std::int64_t steps = tokens / kStep;
  ValueInterleaver values(s, tokens, outputs.d_v(), (groups + 1) / 2);
  values.begin(0);
  for (std::int64_t dim = 0; dim < outputs.d_v(); dim += kPanel) {
    values.finish();
    values.begin(dim + kPanel);
    if (dim + kPanel <= outputs.d_v()) {
      accumulate_panel<Tiles, 2>(s, groups, steps, first, heavy, dim, outputs, values, ahead);
    } else {
      accumulate_panel<Tiles, 1>(s, groups, steps, first, heavy, dim, outputs, values, ahead);
    }
  }
}

/// Computes the partial of one chunk, the keys `tokens`, a block at a time. The blocks are counted
/// from the chunk's begin, so where rows' bases are looked at never depends on who computes the
/// chunk. Rows up to token `limit` are prefetched one block ahead.
template <class Tiles>
void compute_chunk(const DecodeParams& params, Range tokens, std::int64_t limit, const Scratch& s,
                   const PartialView& result) {
  const MlaShape& shape = params.shape;
  const std::int64_t groups = ceil_div(result.rows, kLanes);
  const Outputs outputs(s, result);
  for (std::int64_t lane = 0; lane < groups * kLanes; lane += kLanes) {
    _mm512_storeu_ps(result.m_log2 + lane, _mm512_set1_ps(kEmptyM));
    _mm512_storeu_ps(result.l + lane, _mm512_setzero_ps());
  }
  find_visible_ends(params, tokens, {s.visible, static_cast<std::size_t>(groups * kLanes)});
  const auto softmax_pieces = static_cast<int>(
      ceil_div(BlockSoftmax<Tiles>::kPiecesForTwoGroups, ceil_div(shape.d_qk, kStep)));
  for (std::int64_t begin = tokens.begin; begin < tokens.end; begin += kBlockTokens) {
    const std::int64_t end = begin + kBlockTokens < tokens.end ? begin + kBlockTokens : tokens.end;
    const std::int64_t ahead_end = end + kBlockTokens < limit ? end + kBlockTokens : limit;
    find_token_rows(params, {begin, end}, s.zero_row, {s.rows, kBlockTokens});
    find_token_rows(params, {end, ahead_end}, s.zero_row, {s.ahead, kBlockTokens});
    Prefetcher ahead(s.ahead, ahead_end - end, shape.d_qk * 2, lines_per_step(shape, groups));

    const int whole_steps = static_cast<int>(round_up(end - begin, kStep));
    BlockSoftmax<Tiles> softmax(s, whole_steps, begin - tokens.begin, params.scale_log2, result,
                                outputs, softmax_pieces);
    weigh_block(s, shape.d_qk, groups, whole_steps, softmax, ahead);
    accumulate_block<Tiles>(s, groups, whole_steps, begin == tokens.begin, softmax.heavy_rows(),
                            outputs, ahead);
    ahead.finish();
  }
  outputs.finish();
}

/// `HostBackend::decode` for a bf16 cache.
template <class Tiles>
void decode_with(const DecodeParams& params, Range chunks, float* nodes, const Scratch& s) {
  if (chunks.empty()) return;
  const std::int64_t limit = end_of_tokens(params, chunks);
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
