#include "kernels/reference/projected_oracle.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "kernels/reference/exact_math.h"

namespace mla::kernels {
namespace {

/// `x` as an element of `dtype`.
double rounded(DType dtype, double x) {
  const auto single = static_cast<float>(x);
  const float result =
      dtype == DType::kBf16 ? to_float(to_bf16(single)) : to_float(to_fp16(single));
  return static_cast<double>(result);
}

/// Attention of the absorbed query `q` [d_qk] to keys [0, seen): o [d_v]; returns the log-sum-exp.
double attend(const Batch& batch, const KvView& kv, const std::int32_t* block_table,
              std::int64_t kv_head, std::int64_t seen, const std::vector<double>& q,
              std::vector<double>& o) {
  std::fill(o.begin(), o.end(), 0.0);
  if (seen <= 0) return std::numeric_limits<double>::infinity();
  std::vector<double> row(batch.shape.d_qk);
  std::vector<double> scores(seen);
  for (std::int64_t t = 0; t < seen; ++t) {
    widen(batch.dtype, kv.row(block_table, t, kv_head), batch.shape.d_qk, row.data());
    scores[t] = batch.softmax_scale * dot(q.data(), row.data(), batch.shape.d_qk);
  }
  const double max = *std::max_element(scores.begin(), scores.end());
  double sum = 0;
  for (const double score : scores) sum += std::exp(score - max);
  for (std::int64_t t = 0; t < seen; ++t) {
    widen(batch.dtype, kv.row(block_table, t, kv_head), batch.shape.d_v, row.data());
    add_scaled(o.data(), std::exp(scores[t] - max) / sum, row.data(), batch.shape.d_v);
  }
  return max + std::log(sum);
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
  const MlaShape& shape = batch.shape;
  const ProjectedQueries& queries = inputs.queries;
  std::vector<double> nope(w_uk.d_in);
  std::vector<double> q(shape.d_qk);
  std::vector<double> o(shape.d_v);
  std::int64_t token = 0;
  for (std::size_t r = 0; r < batch.requests.size(); ++r) {
    const Request& request = batch.requests[r];
    for (std::int64_t j = 0; j < request.query_len; ++j, ++token) {
      const std::int64_t seen =
          request.context_len - (batch.causal ? request.query_len - 1 - j : 0);
      for (std::int64_t head = 0; head < shape.h_q; ++head) {
        widen(batch.dtype,
              queries.nope + token * queries.nope_token_stride + head * queries.nope_head_stride,
              w_uk.d_in, nope.data());
        widen(batch.dtype,
              queries.rope + token * queries.rope_token_stride + head * queries.rope_head_stride,
              queries.d_rope, &q[shape.d_v]);
        multiply_exactly(w_uk, head, nope.data(), q.data());
        for (std::int64_t i = 0; i < shape.d_v; ++i) q[i] = rounded(batch.dtype, q[i]);
        const std::int64_t row = token * shape.h_q + head;
        lse[row] = attend(batch, inputs.kv, inputs.block_tables[r], head / shape.heads_per_kv(),
                          seen, q, o);
        multiply_exactly(w_uv, head, o.data(), &out[row * w_uv.d_out]);
      }
    }
  }
}

}  // namespace mla::kernels
