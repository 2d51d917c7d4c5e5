#pragma once

#include <cstdint>

#include "kernels/backend.h"
#include "kernels/cpu/scratch.h"
#include "kernels/cpu/softmax.h"
#include "kernels/fold_decode.h"
#include "kernels/token_rows.h"

// What all schemes that have query rows in the lanes of a vector have in common. A Scheme is a type
// of an unnamed namespace of a file with ISA flags, so that nothing here is linked elsewhere. It
// has
//   Simd                                         its vectors: see portable/simd.h
//   kBlockTokens                                 between two looks at the running maximum
//   kTokensAhead                                 how far ahead rows are prefetched
//   pack_queries(params, groups, scratch)        once per call
//   score_block(params, groups, tokens, scratch) scores[token][row] of one block
//   store_weights(scratch, ld, lane, t, p0, p1)  keeps the weights of tokens t and t + 1
//   kRoundsWeights                               whether that rounds them; if so,
//   store_residuals(...)                         keeps what rounding took from some rows' weights
//   accumulate_block(scratch, tokens, ld, heavy, result, first)
//                                                o <- rescale o + weights V of one block, the
//                                                first of the chunk or not, `heavy` rows of it
//                                                with residuals, too
//   finish(result)                               puts a finished chunk's outputs in order

namespace mla::kernels::cpu {

/// Computes the partial of one chunk, the keys `tokens`, kBlockTokens at a time. The
/// blocks are counted from the chunk's begin, so where the running maximum is looked at never
/// depends on who computes the chunk. Rows up to token `limit` are prefetched.
template <class Scheme>
void compute_chunk(const DecodeParams& params, Range tokens, std::int64_t limit, const Scratch& s,
                   const PartialView& result) {
  using Simd = typename Scheme::Simd;
  constexpr int kLanes = Simd::kLanes;
  constexpr int kBlockTokens = Scheme::kBlockTokens;
  const std::int64_t groups = ceil_div(result.rows, kLanes);
  const std::int64_t ld = groups * kLanes;
  for (std::int64_t lane = 0; lane < ld; lane += kLanes) {
    Simd::store(result.m_log2 + lane, Simd::broadcast(kEmptyM));
    Simd::store(result.l + lane, Simd::broadcast(0));
  }
  find_visible_ends(params, tokens, {s.visible, static_cast<std::size_t>(ld)});
  for (std::int64_t begin = tokens.begin; begin < tokens.end; begin += kBlockTokens) {
    const std::int64_t end = begin + kBlockTokens < tokens.end ? begin + kBlockTokens : tokens.end;
    const auto ahead = [&](std::int64_t token) {
      return token + Scheme::kTokensAhead < limit ? token + Scheme::kTokensAhead : limit;
    };
    find_token_rows(params, {begin, end}, s.zero_row, {s.rows, kBlockTokens});
    find_token_rows(params, {ahead(begin), ahead(end)}, s.zero_row, {s.ahead, kBlockTokens});
    if (!params.next.empty()) {
      find_next_pieces(params, begin, limit, s.zero_row, {s.next, kBlockTokens});
    }
    const int count = static_cast<int>(end - begin);
    Scheme::score_block(params, groups, count, s);

    int num_heavy = 0;
    const auto block_begin = Simd::broadcast(static_cast<float>(begin - tokens.begin));
    for (std::int64_t lane = 0; lane < ld; lane += kLanes) {
      const auto visible = Simd::from_int(s.visible + lane) - block_begin;
      [[maybe_unused]] const auto heavy = softmax_step<Simd>(
          s.scores + lane, ld, count + count % 2, visible, params.scale_log2, result.m_log2 + lane,
          result.l + lane, s.rescale + lane,
          [&](int t, auto p0, auto p1) { Scheme::store_weights(s, ld, lane, t, p0, p1); });
      if constexpr (Scheme::kRoundsWeights) {
        num_heavy += Scheme::store_residuals(s, ld, lane, count, result, heavy, num_heavy);
      }
    }
    Scheme::accumulate_block(s, count, ld, num_heavy, result, begin == tokens.begin);
  }
  Scheme::finish(result);
}

/// Loads a little of every line of the first of `tokens`, which nobody has prefetched: along rows
/// the hardware looks ahead, across the rows that a tile reads side by side it does not.
[[gnu::always_inline]] inline void touch_first_rows(const DecodeParams& params, Range tokens,
                                                    const Scratch& s) {
  constexpr std::int64_t kTokens = 32;
  constexpr std::int64_t kLine = 32;  // words
  if (tokens.size() > kTokens) tokens.end = tokens.begin + kTokens;
  find_token_rows(params, tokens, s.zero_row, {s.rows, kTokens});
  const std::int64_t words = params.shape.d_qk * size_of(params.kv.dtype) / 2;
  for (std::int64_t t = 0; t < tokens.size(); ++t) {
    const volatile std::uint16_t* row = s.rows[t];
    for (std::int64_t i = 0; i < words; i += kLine) static_cast<void>(row[i]);
  }
}

/// `HostBackend::decode`.
template <class Scheme>
void decode_with(const DecodeParams& params, Range chunks, float* nodes, const Scratch& s) {
  if (chunks.empty()) return;
  const std::int64_t limit = end_of_tokens(params, chunks);
  touch_first_rows(params, {chunks.begin * params.chunk_tokens, limit}, s);
  Scheme::pack_queries(params, ceil_div(params.rows.size(), Scheme::Simd::kLanes), s);
  fold_decode(params, chunks, nodes, s.spill, [&](Range tokens, const PartialView& result) {
    compute_chunk<Scheme>(params, tokens, limit, s, result);
  });
}

}  // namespace mla::kernels::cpu
