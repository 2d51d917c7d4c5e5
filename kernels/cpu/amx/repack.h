#pragma once

#include <cstdint>
#include <cstring>

#include <immintrin.h>

#include "kernels/backend.h"
#include "kernels/cpu/amx/scratch.h"
#include "kernels/cpu/amx/sums.h"
#include "kernels/cpu/amx/tiles.h"
#include "kernels/cpu/avx512/transpose.h"

// How queries, keys, weights and values become tiles, and tiles become outputs. Included only by
// files compiled for AMX and AVX-512.

namespace mla::kernels::amx {

using avx512::transpose;

/// Asks for cache rows to be brought into L2, a few lines at a time, while other work goes on.
class Prefetcher {
 public:
  /// `lines` are asked for at each step.
  Prefetcher(const std::uint16_t* const* rows, std::int64_t count, std::int64_t row_bytes,
             std::int64_t lines)
      : next_row_(rows), end_(rows + count), row_bytes_(row_bytes), step_bytes_(lines * 64) {}

  [[gnu::always_inline]] void advance(std::int64_t steps = 1) { ask_for(steps * step_bytes_); }
  [[gnu::always_inline]] void finish() {
    ask_for((end_ - next_row_ + 1) * round_up(row_bytes_, 64));
  }

 private:
  [[gnu::always_inline]] void ask_for(std::int64_t bytes) {
    while (true) {
      const std::int64_t stop = line_ + bytes < row_end_ ? line_ + bytes : row_end_;
      bytes -= stop - line_;
      for (; line_ < stop; line_ += 64) {
        _mm_prefetch(reinterpret_cast<const char*>(line_), _MM_HINT_T1);
      }
      if (bytes <= 0 || next_row_ == end_) return;
      line_ = reinterpret_cast<std::int64_t>(*next_row_++);
      row_end_ = line_ + row_bytes_;
    }
  }

  const std::uint16_t* const* next_row_;
  const std::uint16_t* const* end_;
  std::int64_t row_bytes_;
  std::int64_t step_bytes_;
  std::int64_t line_ = 0;     // addresses: the next line of the row begun
  std::int64_t row_end_ = 0;  // and the row's end
};

/// The first `count` of 32 elements; none if `count` is negative, at most all.
[[gnu::always_inline]] inline __mmask32 elements_below(std::int64_t count) {
  if (count >= 32) return 0xffffffffU;
  return count <= 0 ? 0 : (1U << count) - 1;
}

/// The 16 x 16 pairs at `pairs`, transposed.
[[gnu::always_inline]] inline void load_transposed(const std::uint32_t* pairs, __m512i (&v)[16]) {
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) v[i] = _mm512_load_si512(pairs + i * 16);
  transpose(v);
}

/// queries[group][step] <- the tile whose row k is pair k of the step's elements, of 16 query rows.
/// Missing rows and elements are 0.
[[gnu::always_inline]] inline void pack_queries(const DecodeParams& params, const Scratch& s) {
  std::uint32_t* tile = s.queries;
  for (std::int64_t first = params.rows.begin; first < params.rows.end; first += kLanes) {
    for (std::int64_t k = 0; k < params.shape.d_qk; k += kStep, tile += kTileWords) {
      const __mmask32 valid = elements_below(params.shape.d_qk - k);
      __m512i v[16];
#pragma GCC unroll 16
      for (int i = 0; i < kLanes; ++i) {
        v[i] = first + i < params.rows.end
                   ? _mm512_maskz_loadu_epi16(valid, params.q_row(first + i) + k)
                   : _mm512_setzero_si512();
      }
      transpose(v);
#pragma GCC unroll 16
      for (int i = 0; i < 16; ++i) _mm512_store_si512(tile + i * 16, v[i]);
    }
  }
}

/// Bytes from each of 16 rows to the next; `kIrregular` if they differ.
inline constexpr std::int64_t kIrregular = INT64_MIN;
[[gnu::always_inline]] inline std::int64_t row_distance(const std::uint16_t* const* rows) {
  const auto address = [&](int i) { return reinterpret_cast<std::intptr_t>(rows[i]); };
  const std::int64_t distance = address(1) - address(0);
  for (int i = 2; i < kTileRows; ++i) {
    if (address(i) - address(i - 1) != distance) return kIrregular;
  }
  return distance;
}

/// The cache rows of tokens [t, t + 16) of the block as tiles: where they lie if they lie at one
/// distance and divide into whole steps, else a copy filled up with zeros.
[[gnu::always_inline]] inline Operand key_tiles(const Scratch& s, int t, std::int64_t d_qk) {
  const std::int64_t copied_d_qk = round_up(d_qk, kStep);
  if (d_qk == copied_d_qk) {
    const std::int64_t distance = row_distance(s.rows + t);
    if (distance != kIrregular) return {s.rows[t], distance, kStep * 2};
  }
  std::uint16_t* copy = s.key_rows + t * copied_d_qk;
  for (int i = 0; i < kTileRows; ++i) {
    std::uint16_t* to = copy + i * copied_d_qk;
    std::memcpy(to, s.rows[t + i], static_cast<std::size_t>(d_qk) * 2);
    std::memset(to + d_qk, 0, static_cast<std::size_t>(copied_d_qk - d_qk) * 2);
  }
  return {copy, copied_d_qk * 2, kStep * 2};
}

/// Interleaves the values of a block, a panel of 32 elements at a time and that in small pieces, to
/// be done between tile products.
///   values[panel % 2][i][step] <- the tile whose row k is pair k of the step's tokens, of 16 value
///                                 elements
class ValueInterleaver {
 public:
  /// `tokens` is whole steps. For each step and panel, `advance` is called `calls` times.
  [[gnu::always_inline]] ValueInterleaver(const Scratch& s, int tokens, std::int64_t d_v,
                                          std::int64_t calls)
      : s_(s),
        tokens_(tokens),
        token_(tokens),
        pieces_(static_cast<int>(ceil_div(kStep / kTokens, calls))),
        d_v_(d_v) {}

  /// The panel that begins at element `dim`; nothing if that is past the last one.
  [[gnu::always_inline]] void begin(std::int64_t dim) {
    dim_ = dim;
    token_ = dim < d_v_ ? 0 : tokens_;
  }
  [[gnu::always_inline]] void advance() {
    for (int i = 0; i < pieces_ && token_ < tokens_; ++i) interleave();
  }
  [[gnu::always_inline]] void finish() {
    while (token_ < tokens_) interleave();
  }
  /// The panel that begins at element `dim`.
  [[gnu::always_inline]] std::uint32_t* panel(std::int64_t dim) const {
    return s_.values + dim / kPanel % 2 * (kPanelTiles * kWeightSteps * kTileWords);
  }

 private:
  static constexpr int kTokens = 8;  // of a piece

  [[gnu::always_inline]] void interleave() {
    // Unpacking works within 128 bits: their low halves get the panel's first 16 elements, the high
    // halves the others.
    const __m512i order = _mm512_setr_epi64(0, 4, 1, 5, 2, 6, 3, 7);
    const __mmask32 valid = elements_below(d_v_ - dim_);
    std::uint32_t* low = panel(dim_) + token_ / 2 * kLanes;
    std::uint32_t* high = low + kWeightSteps * kTileWords;
#pragma GCC unroll 4
    for (int t = token_; t < token_ + kTokens; t += 2, low += kLanes, high += kLanes) {
      const auto row = [&](int i) __attribute__((always_inline)) {
        return _mm512_permutexvar_epi64(order, _mm512_maskz_loadu_epi16(valid, s_.rows[i] + dim_));
      };
      const __m512i v0 = row(t);
      const __m512i v1 = row(t + 1);
      _mm512_store_si512(low, _mm512_unpacklo_epi16(v0, v1));
      _mm512_store_si512(high, _mm512_unpackhi_epi16(v0, v1));
    }
    token_ += kTokens;
  }

  const Scratch& s_;
  const int tokens_;
  int token_;
  const int pieces_;
  const std::int64_t d_v_;
  std::int64_t dim_ = 0;
};

}  // namespace mla::kernels::amx
