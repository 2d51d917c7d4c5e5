#include "kernels/reference/projected_oracle.h"

#include <algorithm>
#include <limits>
#include <vector>

#include "core/partition.h"
#include "kernels/local_decode.h"
#include "kernels/reference/exact_math.h"
#include "kernels/reference/oracle.h"

namespace mla::kernels {
namespace {

/// (nope W_UK, rope), rounded: [total_q, h_q, d_qk].
std::vector<std::uint16_t> absorbed_queries(const Batch& batch, const HeadMatrices& w_uk,
                                            const ProjectedQueries& queries, std::int64_t total_q) {
  const MlaShape& shape = batch.shape;
  std::vector<double> nope(w_uk.d_in);
  std::vector<double> q(shape.d_v);
  std::vector<std::uint16_t> absorbed(total_q * shape.h_q * shape.d_qk);
  std::uint16_t* to = absorbed.data();
  for (std::int64_t token = 0; token < total_q; ++token) {
    for (std::int64_t head = 0; head < shape.h_q; ++head) {
      widen(batch.dtype,
            queries.nope + token * queries.nope_token_stride + head * queries.nope_head_stride,
            w_uk.d_in, nope.data());
      multiply_exactly(w_uk, head, nope.data(), q.data());
      for (const double x : q) {
        const auto single = static_cast<float>(x);
        *to++ = batch.dtype == DType::kBf16 ? to_bf16(single).bits : to_fp16(single).bits;
      }
      to = std::copy_n(
          queries.rope + token * queries.rope_token_stride + head * queries.rope_head_stride,
          queries.d_rope, to);
    }
  }
  return absorbed;
}

}  // namespace

void multiply_exactly(const HeadMatrices& m, std::int64_t head, const double* from, double* into) {
  const std::uint16_t* data = m.data + head * m.head_stride;
  std::fill_n(into, m.d_out, 0.0);
  for (std::int64_t i = 0; i < m.d_in; ++i) {
    for (std::int64_t o = 0; o < m.d_out; ++o) {
      double weight = 0;
      widen(m.dtype, data + i * m.in_stride + o * m.out_stride, 1, &weight);
      into[o] += from[i] * weight;
    }
  }
}

void projected_oracle(const Batch& batch, const HeadMatrices& w_uk, const HeadMatrices& w_uv,
                      const ProjectedInputs& inputs, std::span<double> out, std::span<double> lse) {
  const auto [h_q, h_kv, d_qk, d_v] = batch.shape;
  const std::vector<std::int64_t> offsets = query_offsets(batch);
  const std::vector<std::uint16_t> q =
      absorbed_queries(batch, w_uk, inputs.queries, offsets.back());
  const Partition whole = make_partition(batch, {.kind = ShardMode::Kind::kBatch}, 1);
  RankInputs tensors{.kv = inputs.kv, .pieces = {}};
  for (const Piece& piece : whole.pieces) {
    tensors.pieces.push_back({.block_table = inputs.block_tables[piece.request],
                              .q = q.data() + offsets[piece.request] * h_q * d_qk,
                              .q_token_stride = h_q * d_qk,
                              .q_head_stride = d_qk});
  }
  std::fill(out.begin(), out.end(), 0.0);
  std::fill(lse.begin(), lse.end(), std::numeric_limits<double>::infinity());
  for (const WorkItem& item : work_items(batch, whole.pieces)) {
    std::vector<double> o(item.rows.size() * d_v);
    std::vector<double> item_lse(item.rows.size());
    oracle(decode_params(batch, item, tensors), o.data(), item_lse.data());
    for (std::int64_t i = 0; i < item.rows.size(); ++i) {
      const std::int64_t row = item.rows.begin + i;
      const std::int64_t token = offsets[item.request] + row / item.heads.size();
      const std::int64_t head = item.heads.begin + row % item.heads.size();
      lse[token * h_q + head] = item_lse[i];
      multiply_exactly(w_uv, head, &o[i * d_v], &out[(token * h_q + head) * w_uv.d_out]);
    }
  }
}

}  // namespace mla::kernels
