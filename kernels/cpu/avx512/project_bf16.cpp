#include <cstring>

#include <immintrin.h>

#include "kernels/cpu/avx512/project.h"
#include "kernels/cpu/tiles.h"

namespace mla::kernels::avx512 {
namespace {

constexpr int kVector = 16;        // floats, and pairs of bf16
constexpr int kTileRows = 8;       // times one panel: 16 sums in registers
constexpr int kFewRowsPanels = 4;  // at a time, where a row or two have too few sums of their own
constexpr std::int64_t kFewRowsDims = kFewRowsPanels * kPanel;

/// Rows of x, all of bf16.
struct Rows {
  const std::uint16_t* x;
  std::int64_t stride;
};

[[gnu::always_inline]] inline __m512bh broadcast_pair(const std::uint16_t* pair) {
  std::int32_t bits;
  std::memcpy(&bits, pair, sizeof bits);
  return reinterpret_cast<__m512bh>(_mm512_set1_epi32(bits));
}

/// Stores the sums of one row and one panel at y[row][dim], the last half panel masked.
[[gnu::always_inline]] inline void store_sums(const HeadProduct& p, std::int64_t row,
                                              std::int64_t dim, __m512 low, __m512 high) {
  const bool whole = p.d_out - dim >= kPanel;
  if (p.y_dtype == DType::kFp32) {
    float* y = static_cast<float*>(p.y) + row * p.y_stride + dim;
    _mm512_storeu_ps(y, low);
    if (whole) _mm512_storeu_ps(y + kVector, high);
  } else {
    auto* y = static_cast<std::uint16_t*>(p.y) + row * p.y_stride + dim;
    const auto both = reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(high, low));
    _mm512_mask_storeu_epi16(y, whole ? 0xffffffffU : 0xffffU, both);
  }
}

/// y of kRows rows and kPanels panels. Prefetches as many bytes from `next` on as it reads of W,
/// unless that is null.
template <int kRows, int kPanels>
[[gnu::always_inline]] inline void multiply_tile(const HeadProduct& p, const Rows& rows,
                                                 std::int64_t first_row, std::int64_t dim,
                                                 const std::byte* next) {
  const std::int64_t pairs = p.d_in / 2;
  const auto* w = reinterpret_cast<const std::uint32_t*>(p.packed.data()) + dim * pairs;
  const std::uint16_t* x = rows.x + first_row * rows.stride;
  __m512 low[kRows][kPanels];
  __m512 high[kRows][kPanels];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int n = 0; n < kPanels; ++n) low[r][n] = high[r][n] = _mm512_setzero_ps();
  }
  for (std::int64_t i = 0; i < pairs; ++i) {
#pragma GCC unroll 4
    for (int n = 0; n < kPanels; ++n) {
      const std::uint32_t* pair_of_w = w + (n * pairs + i) * kPanel;
      const auto w0 = reinterpret_cast<__m512bh>(_mm512_load_si512(pair_of_w));
      const auto w1 = reinterpret_cast<__m512bh>(_mm512_load_si512(pair_of_w + kVector));
      if (next != nullptr) {
        const auto* line = reinterpret_cast<const char*>(next) + (n * pairs + i) * kPanel * 4;
        _mm_prefetch(line, _MM_HINT_T1);
        _mm_prefetch(line + 64, _MM_HINT_T1);
      }
#pragma GCC unroll 8
      for (int r = 0; r < kRows; ++r) {
        const __m512bh pair = broadcast_pair(x + r * rows.stride + 2 * i);
        low[r][n] = _mm512_dpbf16_ps(low[r][n], w0, pair);
        high[r][n] = _mm512_dpbf16_ps(high[r][n], w1, pair);
      }
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int n = 0; n < kPanels; ++n) {
      store_sums(p, first_row + r, dim + n * kPanel, low[r][n], high[r][n]);
    }
  }
}

/// At most eight rows from `row` on, and one panel.
void multiply_rows(const HeadProduct& p, const Rows& rows, std::int64_t row, std::int64_t dim,
                   const std::byte* next) {
  const std::int64_t count = p.rows - row < kTileRows ? p.rows - row : kTileRows;
  cpu::with_constant<kTileRows>(
      count, [&]<int kRows>() { multiply_tile<kRows, 1>(p, rows, row, dim, next); });
}

/// fp32 rows, rounded to bf16; others as they are.
Rows bf16_rows(const HeadProduct& p, std::uint16_t* rounded) {
  if (p.x_dtype != DType::kFp32) return {static_cast<const std::uint16_t*>(p.x), p.x_stride};
  for (std::int64_t row = 0; row < p.rows; ++row) {
    const float* x = static_cast<const float*>(p.x) + row * p.x_stride;
    for (std::int64_t i = 0; i < p.d_in; i += kVector) {
      const auto valid =
          static_cast<__mmask16>(p.d_in - i >= kVector ? 0xffff : (1U << (p.d_in - i)) - 1);
      const __m512 floats = _mm512_maskz_loadu_ps(valid, x + i);
      const auto halves = reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(floats));
      _mm256_mask_storeu_epi16(rounded + row * p.d_in + i, valid, halves);
    }
  }
  return {rounded, p.d_in};
}

}  // namespace

void multiply_bf16(const HeadProduct& p, std::uint16_t* rounded) noexcept {
  const Rows rows = bf16_rows(p, rounded);
  const std::int64_t panel_bytes = p.d_in / 2 * kPanel * 4;
  const auto next_at = [&](std::int64_t dim, std::int64_t panels) {
    const std::int64_t begin = dim / kPanel * panel_bytes;
    const bool exists = begin + panels * panel_bytes <= static_cast<std::int64_t>(p.next.size());
    return exists ? p.next.data() + begin : nullptr;
  };
  std::int64_t dim = 0;
  for (; p.rows <= 2 && dim + kFewRowsDims <= p.d_out; dim += kFewRowsDims) {
    const std::byte* next = next_at(dim, kFewRowsPanels);
    if (p.rows == 1) multiply_tile<1, kFewRowsPanels>(p, rows, 0, dim, next);
    if (p.rows == 2) multiply_tile<2, kFewRowsPanels>(p, rows, 0, dim, next);
  }
  for (; dim < p.d_out; dim += kPanel) {
    for (std::int64_t row = 0; row < p.rows; row += kTileRows) {
      multiply_rows(p, rows, row, dim, row == 0 ? next_at(dim, 1) : nullptr);
    }
  }
}

void normalise_bf16(const PartialView& partial, std::uint16_t* y, std::int64_t y_stride) noexcept {
  for (std::int64_t row = 0; row < partial.rows; ++row) {
    const __m512 l = _mm512_set1_ps(partial.l[row]);
    const auto seen = static_cast<__mmask16>(partial.m_log2[row] == kEmptyM ? 0 : 0xffff);
    for (std::int64_t d = 0; d < partial.d_v; d += kVector) {
      const __m512 o = _mm512_loadu_ps(partial.o + row * partial.d_v + d);
      const auto halves =
          reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(_mm512_maskz_div_ps(seen, o, l)));
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(y + row * y_stride + d), halves);
    }
  }
}

}  // namespace mla::kernels::avx512
