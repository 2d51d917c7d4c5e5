#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "core/partial.h"
#include "core/range.h"
#include "kernels/projected_weights.h"

// What surrounds absorbed attention, as steps of their own: queries before it, values after it. The
// fused operator (projected_decode.h) is made of the same functions and gives the same bits.

namespace mla::kernels {

/// Queries as the model's projections leave them, elements of the weights' type, not owned. All
/// strides count elements.
struct ProjectedQueries {
  const std::uint16_t* nope = nullptr;  ///< [total_q, heads, d_nope]
  std::int64_t nope_token_stride = 0;
  std::int64_t nope_head_stride = 0;
  const std::uint16_t* rope = nullptr;  ///< [total_q, heads, d_rope], rotated
  std::int64_t rope_token_stride = 0;
  std::int64_t rope_head_stride = 0;
  std::int64_t d_rope = 0;
};

/// Rows [token][head] of a tensor of any 16-bit type or fp32. Strides count elements.
template <class Element>
struct HeadRows {
  Element* data = nullptr;  ///< of the first token and head
  DType dtype = DType::kBf16;
  std::int64_t token_stride = 0;
  std::int64_t head_stride = 0;
};
using HeadRowsIn = HeadRows<const void>;
using HeadRowsOut = HeadRows<void>;

/// Bytes of scratch that one thread of any function here needs.
std::int64_t projection_scratch_bytes(const PackedProjections& weights);

/// Queries of absorbed attention, for tokens `tokens` of `head`:
///   absorbed[token - tokens.begin] = (nope W_UK[head], rope),
/// the product rounded to the weights' type. `next` may be prefetched.
/// @param absorbed rows of d_latent + d_rope elements, `absorbed_stride` apart
void absorb_head(const PackedProjections& weights, const ProjectedQueries& queries,
                 std::int64_t head, Range tokens, std::uint16_t* absorbed,
                 std::int64_t absorbed_stride, std::span<const std::byte> next,
                 std::span<std::byte> scratch) noexcept;

/// out[token] = o[token] W_UV[head] for `tokens` tokens of `head`. `next` may be prefetched.
/// @param o   rows of d_latent elements of the weights' type or fp32 (which a kernel may round to
///            the weights' type: see docs/kernels.md), at `head`
/// @param out rows of d_v_head elements of the weights' type or fp32, at `head`
void project_head(const PackedProjections& weights, std::int64_t head, std::int64_t tokens,
                  const HeadRowsIn& o, const HeadRowsOut& out, std::span<const std::byte> next,
                  std::span<std::byte> scratch) noexcept;

/// All heads of tokens [0, total_q): `absorbed` is [total_q, heads, d_latent + d_rope]. Heads are
/// shared out to `threads` threads, so each weight is read once.
/// @param workspace aligned to 64 bytes, threads * projection_scratch_bytes
void absorb_queries(const PackedProjections& weights, const ProjectedQueries& queries,
                    std::int64_t total_q, std::uint16_t* absorbed, int threads,
                    std::span<std::byte> workspace) noexcept;

/// All heads of tokens [0, total_q).
void project_values(const PackedProjections& weights, std::int64_t total_q, const HeadRowsIn& o,
                    const HeadRowsOut& out, int threads, std::span<std::byte> workspace) noexcept;

/// Projects a partial: m and l stay, every row's o becomes o W_UV of its head. Merging is linear in
/// o, so projected partials merge like others, with d_v_head floats a row instead of d_latent.
/// Which rows go together changes no bit of any.
/// @param heads the weights' heads that the rows belong to
/// @param rows  of query_len * heads.size() (row = query * heads.size() + head), as in WorkItem
/// @param from  rows.size() rows of d_latent; @param into the same of d_v_head
void project_partial(const PackedProjections& weights, Range heads, Range rows,
                     const PartialView& from, const PartialView& into,
                     std::span<std::byte> scratch) noexcept;

}  // namespace mla::kernels
