#include "kernels/projected_steps.h"

#include <algorithm>

namespace mla::kernels {
namespace {

/// Element `offset` of what `base` points to.
template <class Byte, class Element>
Element* at(Element* base, DType dtype, std::int64_t offset) {
  return static_cast<Byte*>(base) + offset * size_of(dtype);
}

/// Calls f(Range) for runs of at most kMaxProductRows of `range`.
template <class F>
void for_each_run(Range range, F&& f) {
  for (std::int64_t begin = range.begin; begin < range.end; begin += kMaxProductRows) {
    f(Range{begin, std::min(range.end, begin + kMaxProductRows)});
  }
}

/// Calls f(head, scratch) for every head, on `threads` threads.
template <class F>
void for_each_head(const PackedProjections& weights, int threads, std::span<std::byte> workspace,
                   F&& f) {
  const auto bytes = static_cast<std::size_t>(projection_scratch_bytes(weights));
#pragma omp parallel for schedule(static, 1) num_threads(threads)
  for (int thread = 0; thread < threads; ++thread) {
    const Range heads = even_part(weights.heads(), threads, thread);
    for (std::int64_t head = heads.begin; head < heads.end; ++head) {
      f(head, workspace.subspan(static_cast<std::size_t>(thread) * bytes, bytes));
    }
  }
}

}  // namespace

std::int64_t projection_scratch_bytes(const PackedProjections& weights) {
  return weights.kernel().workspace_bytes(std::max(weights.d_nope(), weights.d_latent()));
}

void absorb_head(const PackedProjections& weights, const ProjectedQueries& q, std::int64_t head,
                 Range tokens, std::uint16_t* absorbed, std::int64_t absorbed_stride,
                 std::span<const std::byte> next, std::span<std::byte> scratch) noexcept {
  for_each_run(tokens, [&](Range run) {
    std::uint16_t* to = absorbed + (run.begin - tokens.begin) * absorbed_stride;
    const std::uint16_t* nope =
        q.nope + run.begin * q.nope_token_stride + head * q.nope_head_stride;
    weights.kernel().multiply({.packed = weights.w_uk({head, head + 1}),
                               .d_in = weights.d_nope(),
                               .d_out = weights.d_latent(),
                               .rows = run.size(),
                               .x = nope,
                               .x_dtype = weights.dtype(),
                               .x_stride = q.nope_token_stride,
                               .y = to,
                               .y_dtype = weights.dtype(),
                               .y_stride = absorbed_stride,
                               .next = next},
                              scratch);
    for (std::int64_t token = run.begin; token < run.end; ++token, to += absorbed_stride) {
      const std::uint16_t* rope = q.rope + token * q.rope_token_stride + head * q.rope_head_stride;
      std::copy_n(rope, q.d_rope, to + weights.d_latent());
    }
  });
}

void project_head(const PackedProjections& weights, std::int64_t head, std::int64_t tokens,
                  const HeadRowsIn& o, const HeadRowsOut& out, std::span<const std::byte> next,
                  std::span<std::byte> scratch) noexcept {
  for_each_run({0, tokens}, [&](Range run) {
    weights.kernel().multiply(
        {.packed = weights.w_uv({head, head + 1}),
         .d_in = weights.d_latent(),
         .d_out = weights.d_v_head(),
         .rows = run.size(),
         .x = at<const std::byte>(o.data, o.dtype, run.begin * o.token_stride),
         .x_dtype = o.dtype,
         .x_stride = o.token_stride,
         .y = at<std::byte>(out.data, out.dtype, run.begin * out.token_stride),
         .y_dtype = out.dtype,
         .y_stride = out.token_stride,
         .next = next},
        scratch);
  });
}

void absorb_queries(const PackedProjections& weights, const ProjectedQueries& queries,
                    std::int64_t total_q, std::uint16_t* absorbed, int threads,
                    std::span<std::byte> workspace) noexcept {
  const std::int64_t d_qk = weights.d_latent() + queries.d_rope;
  for_each_head(weights, threads, workspace, [&](std::int64_t head, std::span<std::byte> scratch) {
    absorb_head(weights, queries, head, {0, total_q}, absorbed + head * d_qk,
                weights.heads() * d_qk, {}, scratch);
  });
}

void project_values(const PackedProjections& weights, std::int64_t total_q, const HeadRowsIn& o,
                    const HeadRowsOut& out, int threads, std::span<std::byte> workspace) noexcept {
  for_each_head(weights, threads, workspace, [&](std::int64_t head, std::span<std::byte> scratch) {
    HeadRowsIn o_head = o;
    HeadRowsOut out_head = out;
    o_head.data = at<const std::byte>(o.data, o.dtype, head * o.head_stride);
    out_head.data = at<std::byte>(out.data, out.dtype, head * out.head_stride);
    project_head(weights, head, total_q, o_head, out_head, {}, scratch);
  });
}

void project_partial(const PackedProjections& weights, Range heads, Range rows,
                     const PartialView& from, const PartialView& into,
                     std::span<std::byte> scratch) noexcept {
  std::copy_n(from.m_log2, rows.size(), into.m_log2);
  std::copy_n(from.l, rows.size(), into.l);
  const std::int64_t count = heads.size();
  // The first `count` rows begin one run of rows each, of one head, `count` rows apart.
  for (std::int64_t first = 0; first < std::min(count, rows.size()); ++first) {
    const std::int64_t head = heads.begin + (rows.begin + first) % count;
    project_head(weights, head, ceil_div(rows.size() - first, count),
                 {from.o + first * from.d_v, DType::kFp32, count * from.d_v, from.d_v},
                 {into.o + first * into.d_v, DType::kFp32, count * into.d_v, into.d_v}, {},
                 scratch);
  }
}

}  // namespace mla::kernels
