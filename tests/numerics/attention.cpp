#include "tests/numerics/attention.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>
#include <span>

#include "kernels/reference/exact_math.h"
#include "tests/support/problem.h"

namespace mla::test {
namespace {

constexpr std::int64_t kBlockTokens = 64;
constexpr std::int64_t kRangeTokens = 64 * kBlockTokens;
constexpr std::int64_t kMaxPlainRows = 4;

/// Unnormalised sums of one query row over some keys.
struct Sums {
  explicit Sums(std::int64_t d_v) : o(d_v), abs_o(d_v) {}

  double m = -std::numeric_limits<double>::infinity();  ///< natural units
  double l = 0;
  double squares = 0;  ///< of the weights
  double max_key = 0;  ///< largest |k|
  std::vector<double> o;
  std::vector<double> abs_o;

  /// Weights count relative to e^new_m from now on.
  void rescale(double new_m) {
    const double factor = std::exp(m - new_m);
    l *= factor;
    squares *= factor * factor;
    for (double& x : o) x *= factor;
    for (double& x : abs_o) x *= factor;
    m = new_m;
  }

  void merge(Sums& other) {
    const double new_m = std::max(m, other.m);
    rescale(new_m);
    other.rescale(new_m);
    l += other.l;
    squares += other.squares;
    max_key = std::max(max_key, other.max_key);
    kernels::add_scaled(o.data(), 1, other.o.data(), static_cast<std::int64_t>(o.size()));
    kernels::add_scaled(abs_o.data(), 1, other.abs_o.data(), static_cast<std::int64_t>(o.size()));
  }
};

std::int64_t rows_of(const kernels::DecodeParams& params) {
  return params.rows.size();
}

/// The queries in fp64: [rows, d_qk].
std::vector<double> widened_queries(const kernels::DecodeParams& params) {
  const std::int64_t d_qk = params.shape.d_qk;
  std::vector<double> q(rows_of(params) * d_qk);
  for (std::int64_t row = 0; row < rows_of(params); ++row) {
    kernels::widen(params.kv.dtype, params.q_row(params.rows.begin + row), d_qk, &q[row * d_qk]);
  }
  return q;
}

/// Adds up to kBlockTokens keys, widened to `keys`, to the sums of one row.
void add_block(const MlaShape& shape, double scale, const double* q, const double* keys,
               std::int64_t tokens, Sums& sums) {
  double scores[kBlockTokens];
  for (std::int64_t t = 0; t < tokens; ++t) {
    scores[t] = scale * kernels::dot(q, keys + t * shape.d_qk, shape.d_qk);
  }
  const double m = *std::max_element(scores, scores + tokens);
  if (m > sums.m) sums.rescale(m);
  for (std::int64_t t = 0; t < tokens; ++t) {
    const double weight = std::exp(scores[t] - sums.m);
    const double* value = keys + t * shape.d_qk;
    sums.l += weight;
    sums.squares += weight * weight;
    for (std::int64_t d = 0; d < shape.d_v; ++d) {
      const double term = weight * value[d];
      sums.o[d] += term;
      sums.abs_o[d] += std::fabs(term);
    }
  }
}

/// The sums of all rows over the keys `tokens`.
std::vector<Sums> sums_over(const kernels::DecodeParams& params, const std::vector<double>& q,
                            Range tokens) {
  const MlaShape& shape = params.shape;
  const double scale = static_cast<double>(params.scale_log2) * std::numbers::ln2;
  std::vector<Sums> sums(rows_of(params), Sums(shape.d_v));
  std::vector<double> keys(kBlockTokens * shape.d_qk);
  for (std::int64_t begin = tokens.begin; begin < tokens.end; begin += kBlockTokens) {
    const std::int64_t count = std::min(kBlockTokens, tokens.end - begin);
    double max_key = 0;
    for (std::int64_t t = 0; t < count; ++t) {
      double* key = &keys[t * shape.d_qk];
      kernels::widen(params.kv.dtype, params.kv.row(params.block_table, begin + t, params.kv_head),
                     shape.d_qk, key);
      max_key = std::max(max_key, std::sqrt(kernels::dot(key, key, shape.d_qk)));
    }
    for (std::int64_t row = 0; row < rows_of(params); ++row) {
      add_block(shape, scale, &q[row * shape.d_qk], keys.data(), count, sums[row]);
      sums[row].max_key = std::max(sums[row].max_key, max_key);
    }
  }
  return sums;
}

ExactAttention finish(const kernels::DecodeParams& params, const std::vector<double>& q,
                      const std::vector<Sums>& sums) {
  const MlaShape& shape = params.shape;
  const double scale = static_cast<double>(params.scale_log2) * std::numbers::ln2;
  ExactAttention exact;
  for (std::int64_t row = 0; row < rows_of(params); ++row) {
    const Sums& s = sums[row];
    for (const double x : s.o) exact.out.push_back(x / s.l);
    for (const double x : s.abs_o) exact.abs_out.push_back(x / s.l);
    exact.lse.push_back(s.m + std::log(s.l));
    exact.n_eff.push_back(s.l * s.l / s.squares);
    const double* query = &q[row * shape.d_qk];
    exact.score_bound.push_back(scale * s.max_key *
                                std::sqrt(kernels::dot(query, query, shape.d_qk)));
  }
  return exact;
}

/// to[n] <- n elements of the cache.
void widen(DType dtype, const std::uint16_t* from, std::int64_t n, float* to) {
  for (std::int64_t i = 0; i < n; ++i) to[i] = to_float(dtype, from[i]);
}

/// Dot products of one key with up to kMaxPlainRows queries, each a sum over the elements in order.
/// @param q  [d_qk][kMaxPlainRows]
void dot_products(const float* q, const float* key, std::int64_t d_qk, float* sums) {
  float running[kMaxPlainRows] = {};
  for (std::int64_t d = 0; d < d_qk; ++d) {
    for (std::int64_t row = 0; row < kMaxPlainRows; ++row) {
      running[row] += q[d * kMaxPlainRows + row] * key[d];
    }
  }
  std::copy_n(running, kMaxPlainRows, sums);
}

/// The queries, elements outside: [d_qk][kMaxPlainRows]; missing rows are 0.
std::vector<float> transposed_queries(const kernels::DecodeParams& params) {
  const std::int64_t d_qk = params.shape.d_qk;
  std::vector<float> row_elements(d_qk);
  std::vector<float> q(d_qk * kMaxPlainRows);
  for (std::int64_t row = 0; row < rows_of(params); ++row) {
    widen(params.kv.dtype, params.q_row(params.rows.begin + row), d_qk, row_elements.data());
    for (std::int64_t d = 0; d < d_qk; ++d) q[d * kMaxPlainRows + row] = row_elements[d];
  }
  return q;
}

/// Turns the scores of one row into normalised weights; returns its log-sum-exp.
float plain_softmax(std::span<float> scores) {
  const float m = *std::max_element(scores.begin(), scores.end());
  float l = 0;
  for (float& x : scores) {
    x = std::exp(x - m);
    l += x;
  }
  for (float& x : scores) x /= l;
  return m + std::log(l);
}

}  // namespace

ExactAttention exact_attention(const kernels::DecodeParams& params) {
  const std::vector<double> q = widened_queries(params);
  const std::int64_t ranges = ceil_div(params.context_len, kRangeTokens);
  std::vector<Sums> total(rows_of(params), Sums(params.shape.d_v));
#pragma omp parallel for ordered schedule(static, 1)
  for (std::int64_t i = 0; i < ranges; ++i) {
    const Range tokens{i * kRangeTokens, std::min((i + 1) * kRangeTokens, params.context_len)};
    std::vector<Sums> sums = sums_over(params, q, tokens);
#pragma omp ordered
    for (std::int64_t row = 0; row < rows_of(params); ++row) total[row].merge(sums[row]);
  }
  return finish(params, q, total);
}

FloatAttention plain_attention(const kernels::DecodeParams& params, PlainPrecision precision) {
  const auto [h_q, h_kv, d_qk, d_v] = params.shape;
  const DType dtype = params.kv.dtype;
  const std::int64_t context = params.context_len;
  const std::int64_t rows = rows_of(params);
  const float scale = params.scale_log2 * std::numbers::ln2_v<float>;
  const std::vector<float> q = transposed_queries(params);
  std::vector<float> key(d_qk);
  std::vector<float> weights(rows * context);
  for (std::int64_t t = 0; t < context; ++t) {
    widen(dtype, params.kv.row(params.block_table, t, params.kv_head), d_qk, key.data());
    float sums[kMaxPlainRows];
    dot_products(q.data(), key.data(), d_qk, sums);
    for (std::int64_t row = 0; row < rows; ++row) weights[row * context + t] = scale * sums[row];
  }

  FloatAttention result{std::vector<float>(rows * d_v), std::vector<float>(rows)};
  for (std::int64_t row = 0; row < rows; ++row) {
    const std::span<float> row_weights(&weights[row * context], static_cast<std::size_t>(context));
    result.lse[row] = plain_softmax(row_weights);
    if (precision == PlainPrecision::kFp32) continue;
    for (float& weight : row_weights)
      weight = to_float(dtype, to_bits(dtype, static_cast<double>(weight)));
  }
  for (std::int64_t t = 0; t < context; ++t) {
    widen(dtype, params.kv.row(params.block_table, t, params.kv_head), d_v, key.data());
    for (std::int64_t row = 0; row < rows; ++row) {
      const float weight = weights[row * context + t];
      float* out = &result.out[row * d_v];
      for (std::int64_t d = 0; d < d_v; ++d) out[d] += weight * key[d];
    }
  }
  return result;
}

}  // namespace mla::test
