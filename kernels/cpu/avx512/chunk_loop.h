#pragma once

#include <cstdint>

#include <immintrin.h>

#include "kernels/backend.h"
#include "kernels/cpu/avx512/scratch.h"
#include "kernels/cpu/avx512/softmax.h"
#include "kernels/fold_decode.h"
#include "kernels/token_rows.h"

// What the schemes for bf16 and fp16 caches have in common. Included only by the files compiled for
// AVX-512; a Scheme is a type of an unnamed namespace, so that nothing here is linked elsewhere. It
// has
//   pack_queries(params, groups, scratch)        once per call
//   score_block(params, groups, tokens, scratch) scores[token][row] of one block
//   store_weights(scratch, ld, lane, t, p0, p1)  keeps the weights of tokens t and t + 1
//   accumulate<kRows, kVectors>(tile)            one register tile of o <- rescale o + weights V
//   finish(result)                               puts a finished chunk's outputs in order

namespace mla::kernels::avx512 {

inline constexpr int kTileRows = 8;     ///< query rows of one register tile of outputs
inline constexpr int kTileVectors = 2;  ///< and vectors of value elements, 16 elements each

/// What the outputs of earlier blocks are to the tile at hand.
enum class Earlier : std::uint8_t { kNone, kKept, kRescaled };

/// Part of the output accumulators: some query rows times some vectors of value elements.
struct OutTile {
  const Scratch& scratch;
  int tokens;        ///< of the block
  std::int64_t ld;   ///< of the weights
  std::int64_t row;  ///< first query row
  std::int64_t dim;  ///< first value element
  float* out;        ///< at (row, dim)
  std::int64_t d_v;  ///< between query rows of `out`
  Earlier earlier;
};

/// The accumulator for 16 floats of row `r` of the tile, as they stand before the block.
[[gnu::always_inline]] inline __m512 start_sum(const OutTile& tile, int r, const float* out,
                                               __mmask16 valid) {
  if (tile.earlier == Earlier::kNone) return _mm512_setzero_ps();
  const __m512 sum = _mm512_maskz_loadu_ps(valid, out);
  if (tile.earlier == Earlier::kKept) return sum;
  return _mm512_mul_ps(sum, _mm512_set1_ps(tile.scratch.rescale[tile.row + r]));
}

template <class Scheme, int kVectors>
void accumulate_rows(const OutTile& tile, std::int64_t rows) {
  switch (rows) {
    case 1:
      return Scheme::template accumulate<1, kVectors>(tile);
    case 2:
      return Scheme::template accumulate<2, kVectors>(tile);
    case 3:
      return Scheme::template accumulate<3, kVectors>(tile);
    case 4:
      return Scheme::template accumulate<4, kVectors>(tile);
    case 5:
      return Scheme::template accumulate<5, kVectors>(tile);
    case 6:
      return Scheme::template accumulate<6, kVectors>(tile);
    case 7:
      return Scheme::template accumulate<7, kVectors>(tile);
    default:
      return Scheme::template accumulate<kTileRows, kVectors>(tile);
  }
}

/// o <- rescale * o + weights * V for a block of `tokens` tokens; `moved` has a bit for each row
/// whose maximum moved. Rescaling by exactly 1 changes no bit, so it is left out where it can be.
template <class Scheme>
void accumulate_block(const Scratch& s, int tokens, const __mmask16* moved, bool first,
                      const PartialView& result) {
  const std::int64_t ld = round_up(result.rows, kLanes);
  for (std::int64_t dim = 0; dim < result.d_v; dim += kTileVectors * kLanes) {
    for (std::int64_t row = 0; row < result.rows; row += kTileRows) {
      const bool tile_moved = (moved[row / kLanes] >> row % kLanes & 0xff) != 0;
      const Earlier earlier = first        ? Earlier::kNone
                              : tile_moved ? Earlier::kRescaled
                                           : Earlier::kKept;
      float* out = result.o + row * result.d_v + dim;
      const OutTile tile{s, tokens, ld, row, dim, out, result.d_v, earlier};
      if (result.d_v - dim >= kTileVectors * kLanes) {
        accumulate_rows<Scheme, kTileVectors>(tile, result.rows - row);
      } else {
        accumulate_rows<Scheme, 1>(tile, result.rows - row);
      }
    }
  }
}

/// Computes the partial of one chunk, the keys `tokens`, a block of 64 tokens at a time. The blocks
/// are counted from the chunk's begin, so where the running maximum is looked at never depends on
/// who computes the chunk. Rows up to token `limit` are prefetched one block ahead.
template <class Scheme>
void compute_chunk(const DecodeParams& params, Range tokens, std::int64_t limit, const Scratch& s,
                   const PartialView& result) {
  const std::int64_t groups = ceil_div(result.rows, kLanes);
  const std::int64_t ld = groups * kLanes;
  for (std::int64_t lane = 0; lane < ld; lane += kLanes) {
    _mm512_storeu_ps(result.m_log2 + lane, _mm512_set1_ps(kEmptyM));
    _mm512_storeu_ps(result.l + lane, _mm512_setzero_ps());
  }
  find_visible_ends(params, tokens, {s.visible, static_cast<std::size_t>(ld)});
  for (std::int64_t begin = tokens.begin; begin < tokens.end; begin += kBlockTokens) {
    const std::int64_t end = begin + kBlockTokens < tokens.end ? begin + kBlockTokens : tokens.end;
    const std::int64_t ahead_end = end + kBlockTokens < limit ? end + kBlockTokens : limit;
    find_token_rows(params, {begin, end}, s.zero_row, {s.rows, kBlockTokens});
    find_token_rows(params, {end, ahead_end}, s.zero_row, {s.ahead, kBlockTokens});
    const int count = static_cast<int>(end - begin);
    Scheme::score_block(params, groups, count, s);

    __mmask16 moved[kMaxGroups];
    const __m512i block_begin = _mm512_set1_epi32(static_cast<int>(begin - tokens.begin));
    for (std::int64_t lane = 0; lane < ld; lane += kLanes) {
      const __m512i visible = _mm512_sub_epi32(_mm512_load_si512(s.visible + lane), block_begin);
      moved[lane / kLanes] = softmax_step(
          s.scores + lane, ld, count + count % 2, visible, params.scale_log2, result.m_log2 + lane,
          result.l + lane, s.rescale + lane,
          [&](int t, __m512 p0, __m512 p1) { Scheme::store_weights(s, ld, lane, t, p0, p1); });
    }
    accumulate_block<Scheme>(s, count, moved, begin == tokens.begin, result);
  }
  Scheme::finish(result);
}

/// `Backend::decode`.
template <class Scheme>
void decode_with(const DecodeParams& params, Range chunks, float* nodes, const Scratch& s) {
  if (chunks.empty()) return;
  Scheme::pack_queries(params, ceil_div(params.rows.size(), kLanes), s);
  const std::int64_t limit = chunk_token_range(params, chunks.end - 1).end;
  fold_decode(params, chunks, nodes, s.spill, [&](Range tokens, const PartialView& result) {
    compute_chunk<Scheme>(params, tokens, limit, s, result);
  });
}

}  // namespace mla::kernels::avx512
