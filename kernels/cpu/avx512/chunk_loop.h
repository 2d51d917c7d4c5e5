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
//   score_block(params, groups, tokens, scratch, next)
//                                                scores[token][row] of one block; calls
//                                                next.advance(1) once per line of K of a tile
//   store_weights(scratch, ld, lane, t, p0, p1)  keeps the weights of tokens t and t + 1
//   kRoundsWeights                               whether that rounds them; if so,
//   store_residuals(...)                         keeps what rounding took from some rows' weights
//   accumulate<kRows, kVectors>(tile)            one register tile of o <- rescale o + weights V
//   finish(result)                               puts a finished chunk's outputs in order

namespace mla::kernels::avx512 {

inline constexpr int kTileRows = 8;     ///< query rows of one register tile of outputs
inline constexpr int kTileVectors = 2;  ///< and vectors of value elements, 16 elements each

/// The part of `DecodeParams::next` that is prefetched during one block, a few lines at a time:
/// more at once would make the arithmetic wait.
struct NextLines {
  const std::byte* at = nullptr;
  const std::byte* end = nullptr;
  std::int64_t step_bytes = 0;

  /// Of a block of the call that computes up to token `limit`, which takes about `steps` steps.
  [[gnu::always_inline]] static NextLines of_block(const ReadNext& next, Range block,
                                                   std::int64_t limit, std::int64_t steps) {
    if (next.bytes.empty()) return {};
    const auto size = static_cast<std::int64_t>(next.bytes.size());
    const auto position = [&](std::int64_t tokens_left) {
      if (tokens_left >= next.tokens) return std::int64_t{0};
      return size * (next.tokens - tokens_left) / next.tokens / kLineBytes * kLineBytes;
    };
    const std::int64_t begin = position(limit - block.begin);
    const std::int64_t end = position(limit - block.end);
    return {next.bytes.data() + begin, next.bytes.data() + end,
            round_up(ceil_div(end - begin, steps), kLineBytes)};
  }

  [[gnu::always_inline]] void advance(std::int64_t steps) {
    const std::byte* stop = end - at > steps * step_bytes ? at + steps * step_bytes : end;
    for (; at < stop; at += kLineBytes) {
      _mm_prefetch(reinterpret_cast<const char*>(at), _MM_HINT_T1);
    }
  }

  static constexpr std::int64_t kLineBytes = 64;
};

/// Steps of `NextLines` in a block of 64 tokens: one for a cache line of K in a tile of scores, two
/// for a tile of outputs, which takes about twice as long.
inline constexpr std::int64_t kStepsPerOutTile = 2;
[[gnu::always_inline]] inline std::int64_t steps_per_block(const MlaShape& shape,
                                                           std::int64_t rows) {
  const std::int64_t score_tiles = ceil_div(rows, 2 * kLanes) * kBlockTokens * 2 / kTileTokens;
  const std::int64_t out_tiles =
      ceil_div(rows, kTileRows) * ceil_div(shape.d_v, kTileVectors * kLanes);
  return score_tiles * ceil_div(shape.d_qk, 2 * kLanes) + kStepsPerOutTile * out_tiles;
}

/// What the outputs of earlier blocks are to the tile at hand.
enum class Earlier : std::uint8_t { kNone, kKept, kRescaled };

/// Query rows whose outputs take up a block of weighted values.
struct RowSet {
  const std::int32_t* rows;
  std::int64_t count;
  const std::uint32_t* weights;  ///< bf16: [token pair][place in `rows`]
  std::int64_t ld;               ///< between token pairs of `weights`
};

/// Part of the output accumulators: some query rows times some vectors of value elements.
struct OutTile {
  const Scratch& scratch;
  int tokens;                    ///< of the block
  const std::int32_t* rows;      ///< the tile's query rows
  const std::uint32_t* weights;  ///< bf16: of the tile's first row
  std::int64_t ld;               ///< between token pairs of `weights`
  std::int64_t dim;              ///< first value element
  float* out;                    ///< [query row][d_v], at `dim`
  std::int64_t d_v;
  Earlier earlier;

  float* out_row(int r) const { return out + rows[r] * d_v; }
};

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

/// o <- rescale * o + weights * V for the rows of `set` and a block of `tokens` tokens.
/// `earlier(place)` says what becomes of the earlier outputs of the tile that begins there.
template <class Scheme, class EarlierOf>
void accumulate_block(const Scratch& s, int tokens, const RowSet& set, const PartialView& result,
                      NextLines& next, EarlierOf&& earlier) {
  for (std::int64_t dim = 0; dim < result.d_v; dim += kTileVectors * kLanes) {
    for (std::int64_t place = 0; place < set.count; place += kTileRows) {
      const OutTile tile{s,   tokens,         set.rows + place, set.weights + place, set.ld,
                         dim, result.o + dim, result.d_v,       earlier(place)};
      next.advance(kStepsPerOutTile);
      if (result.d_v - dim >= kTileVectors * kLanes) {
        accumulate_rows<Scheme, kTileVectors>(tile, set.count - place);
      } else {
        accumulate_rows<Scheme, 1>(tile, set.count - place);
      }
    }
  }
}

/// Computes the partial of one chunk, the keys `tokens`, a block of 128 tokens at a time. The
/// blocks are counted from the chunk's begin, so where the running maximum is looked at never
/// depends on who computes the chunk. Rows up to token `limit` are prefetched one block ahead.
template <class Scheme>
void compute_chunk(const DecodeParams& params, Range tokens, std::int64_t limit, const Scratch& s,
                   const PartialView& result) {
  const std::int64_t groups = ceil_div(result.rows, kLanes);
  const std::int64_t ld = groups * kLanes;
  for (std::int64_t lane = 0; lane < ld; lane += kLanes) {
    _mm512_storeu_ps(result.m_log2 + lane, _mm512_set1_ps(kEmptyM));
    _mm512_storeu_ps(result.l + lane, _mm512_setzero_ps());
  }
  const std::int64_t steps = steps_per_block(params.shape, result.rows);
  find_visible_ends(params, tokens, {s.visible, static_cast<std::size_t>(ld)});
  for (std::int64_t begin = tokens.begin; begin < tokens.end; begin += kBlockTokens) {
    const std::int64_t end = begin + kBlockTokens < tokens.end ? begin + kBlockTokens : tokens.end;
    const std::int64_t ahead_end = end + kBlockTokens < limit ? end + kBlockTokens : limit;
    find_token_rows(params, {begin, end}, s.zero_row, {s.rows, kBlockTokens});
    find_token_rows(params, {end, ahead_end}, s.zero_row, {s.ahead, kBlockTokens});
    const int count = static_cast<int>(end - begin);
    NextLines next = NextLines::of_block(params.next, {begin, end}, limit, steps);
    Scheme::score_block(params, groups, count, s, next);

    __mmask16 moved[kMaxGroups];
    int num_heavy = 0;
    const __m512i block_begin = _mm512_set1_epi32(static_cast<int>(begin - tokens.begin));
    for (std::int64_t lane = 0; lane < ld; lane += kLanes) {
      const __m512i visible = _mm512_sub_epi32(_mm512_load_si512(s.visible + lane), block_begin);
      const StepMasks step = softmax_step(
          s.scores + lane, ld, count + count % 2, visible, params.scale_log2, result.m_log2 + lane,
          result.l + lane, s.rescale + lane,
          [&](int t, __m512 p0, __m512 p1) { Scheme::store_weights(s, ld, lane, t, p0, p1); });
      moved[lane / kLanes] = step.moved;
      if constexpr (Scheme::kRoundsWeights) {
        const auto heavy = static_cast<__mmask16>(step.heavy & lanes_below(result.rows - lane));
        if (heavy != 0) {
          num_heavy +=
              Scheme::store_residuals(s, ld, lane, count, result.m_log2 + lane, heavy, num_heavy);
        }
      }
    }
    // Rescaling by exactly 1 changes no bit, so it is left out where it can be.
    const bool first = begin == tokens.begin;
    accumulate_block<Scheme>(s, count, {s.all_rows, result.rows, s.weights, ld}, result, next,
                             [&](std::int64_t row) {
                               if (first) return Earlier::kNone;
                               const int tile_moved = moved[row / kLanes] >> row % kLanes & 0xff;
                               return tile_moved != 0 ? Earlier::kRescaled : Earlier::kKept;
                             });
    accumulate_block<Scheme>(s, count, {s.heavy_rows, num_heavy, s.residuals, kResidualLd}, result,
                             next, [](std::int64_t) { return Earlier::kKept; });
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
