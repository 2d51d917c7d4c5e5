#pragma once

#include <cstdint>
#include <limits>

#include "core/exact_math.h"
#include "core/host_device.h"
#include "core/range.h"

namespace mla {

/// An unnormalised softmax-weighted sum over some keys, for each of `rows` query rows. With the
/// scores s taken to base 2 (scaled scores times log2 e), a row holds
///   m = max s,  l = sum 2^(s - m),  o = sum 2^(s - m) v.
/// A kernel may take another number for m that no s exceeds by much: merging asks for no more.
/// The empty partial is (m = -inf, l = 0, o = 0). This is the online softmax of Milakov and
/// Gimelshein (2018) in the split-KV form of FlashDecoding.
struct PartialView {
  float* m_log2 = nullptr;  ///< [rows]
  float* l = nullptr;       ///< [rows]
  float* o = nullptr;       ///< [rows, d_v]
  std::int64_t rows = 0;
  std::int64_t d_v = 0;
};

/// Floats that hold a partial: m, then l, each padded to a cache line, then o.
MLA_HOST_DEVICE constexpr std::int64_t partial_floats(std::int64_t rows, std::int64_t d_v) {
  return 2 * round_up(rows, 16) + round_up(rows * d_v, 16);
}

/// The partial kept at `storage`, which holds `partial_floats(rows, d_v)` floats.
MLA_HOST_DEVICE constexpr PartialView partial_at(float* storage, std::int64_t rows,
                                                 std::int64_t d_v) {
  const std::int64_t padded_rows = round_up(rows, 16);
  return {storage, storage + padded_rows, storage + 2 * padded_rows, rows, d_v};
}

/// The rows `rows` of a partial, in the same memory.
MLA_HOST_DEVICE constexpr PartialView rows_of(const PartialView& partial, Range rows) {
  return {partial.m_log2 + rows.begin, partial.l + rows.begin, partial.o + rows.begin * partial.d_v,
          rows.size(), partial.d_v};
}

inline constexpr float kEmptyM = -std::numeric_limits<float>::infinity();

/// into = into (+) from, row by row, where `into` covers the earlier keys: take the larger m,
/// rescale the other side, add. Empty sides are handled by a branch, so they are exact identities.
/// Forced inline so that each ISA's kernels compile it with their own flags; every version computes
/// the same bits because no multiplication is fused with an addition.
[[gnu::always_inline]] inline void merge_partials(const PartialView& into,
                                                  const PartialView& from) {
  for (std::int64_t row = 0; row < into.rows; ++row) {
    const float m_into = into.m_log2[row];
    const float m_from = from.m_log2[row];
    if (m_from == kEmptyM) continue;
    float* a = into.o + row * into.d_v;
    const float* b = from.o + row * into.d_v;
    if (m_into == kEmptyM) {
      into.m_log2[row] = m_from;
      into.l[row] = from.l[row];
      for (std::int64_t d = 0; d < into.d_v; ++d) a[d] = b[d];
    } else if (m_into >= m_from) {
      const float scale = exp2_exact(m_from - m_into);
      into.l[row] += from.l[row] * scale;
      for (std::int64_t d = 0; d < into.d_v; ++d) a[d] += b[d] * scale;
    } else {
      const float scale = exp2_exact(m_into - m_from);
      into.m_log2[row] = m_from;
      into.l[row] = from.l[row] + into.l[row] * scale;
      for (std::int64_t d = 0; d < into.d_v; ++d) a[d] = b[d] + a[d] * scale;
    }
  }
}

/// The same, compiled for the CPU at hand, for callers without flags of their own.
void merge_here(const PartialView& into, const PartialView& from);

/// Makes every row the empty partial.
void clear_partial(const PartialView& partial);

/// Normalises elements `dims` of row `row`: out[dims.size()] = o / l. A row that saw no key gives
/// zeros.
void finalize_out(const PartialView& partial, std::int64_t row, Range dims, float* out);

/// Natural-log log-sum-exp of row `row`: (m + log2 l) ln 2; +inf for a row that saw no key.
float finalize_lse(const PartialView& partial, std::int64_t row);

}  // namespace mla
