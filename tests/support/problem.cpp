#include "tests/support/problem.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>

namespace mla::test {
namespace {

constexpr std::int32_t kGarbageEntry = 2147480000;
constexpr std::int64_t kGarbageEntries = 3;
constexpr std::uint16_t kNan = 0x7fff;  // in both element types

/// A mixing step of SplitMix64.
std::uint64_t mix(std::uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

/// Roughly normal numbers, fast: sums of four uniform ones.
void fill_normal(std::uint64_t seed, DType dtype, double magnitude, std::uint16_t* to,
                 std::int64_t n) {
  constexpr double kStandardDeviation = 37837.2;  // of a sum of four 16-bit uniform numbers
  const double unit = magnitude / kStandardDeviation;
  const std::uint64_t key = mix(seed);
  for (std::int64_t i = 0; i < n; ++i) {
    const std::uint64_t x = mix(key + i * 0x9e3779b97f4a7c15u);
    const auto sum = static_cast<std::int64_t>((x & 0xffff) + (x >> 16 & 0xffff) +
                                               (x >> 32 & 0xffff) + (x >> 48)) -
                     131070;
    to[i] = to_bits(dtype, static_cast<double>(sum) * unit);
  }
}

}  // namespace

std::uint16_t to_bits(DType dtype, double value) {
  const auto x = static_cast<float>(value);
  return dtype == DType::kBf16 ? to_bf16(x).bits : to_fp16(x).bits;
}

Problem::Problem(const ProblemSpec& spec) : spec_(spec), q_offsets_{0} {
  for (const RequestSizes& request : spec_.requests) {
    q_offsets_.push_back(q_offsets_.back() + request.query_len);
  }
  lay_out_pages();
  fill();
}

void Problem::lay_out_pages() {
  const std::int64_t page = spec_.page_block_size;
  const MlaShape& shape = spec_.shape;
  view_.dtype = spec_.dtype;
  view_.page_block_size = page;
  view_.head_stride = shape.d_qk;
  view_.token_stride = shape.h_kv * shape.d_qk + spec_.token_padding;
  view_.page_stride = page * view_.token_stride;

  // Full pages may be shared; a last page that is not full is its request's own, since its tail
  // is poisoned.
  std::int64_t full = 0;
  std::int64_t partial = 0;
  for (const RequestSizes& request : spec_.requests) {
    full += request.context_len / page;
    partial += request.context_len % page != 0;
  }
  const std::int64_t cap = std::max<std::int64_t>(1, spec_.max_cache_elements / view_.page_stride);
  const std::int64_t shared = std::min(full, cap);
  const std::int64_t unused = 2 + (shared + partial) / 8;
  std::vector<std::int32_t> order(shared + partial + unused);
  std::iota(order.begin(), order.end(), 0);
  std::shuffle(order.begin(), order.end(), std::mt19937_64(spec_.seed));

  std::int64_t next_full = 0;
  std::int64_t next_partial = shared;
  for (const RequestSizes& request : spec_.requests) {
    std::vector<std::int32_t> table;
    for (std::int64_t i = 0; i < request.context_len / page; ++i) {
      table.push_back(order[next_full++ % shared]);
    }
    if (request.context_len % page != 0) table.push_back(order[next_partial++]);
    table.insert(table.end(), kGarbageEntries, kGarbageEntry);
    block_tables_.push_back(std::move(table));
  }
  kv_.assign(static_cast<std::int64_t>(order.size()) * view_.page_stride, kNan);
  view_.data = kv_.data();
}

void Problem::fill() {
  const MlaShape& shape = spec_.shape;
  for (std::int64_t r = 0; r < num_requests(); ++r) {
    const RequestSizes& sizes = spec_.requests[r];
    for (std::int64_t t = 0; t < sizes.context_len; ++t) {
      for (std::int64_t head = 0; head < shape.h_kv; ++head) {
        std::uint16_t* row = mutable_kv_row(r, t, head);
        if (row[0] != kNan) continue;  // a shared page that is filled already
        const std::uint64_t seed = spec_.seed * 1000003u + (r * shape.h_kv + head) * 10000019u + t;
        fill_normal(seed, spec_.dtype, spec_.kv_magnitude, row, shape.d_qk);
      }
    }
  }
  q_.assign(total_queries() * shape.h_q * q_row_stride(), kNan);
  for (std::int64_t i = 0; i < total_queries() * shape.h_q; ++i) {
    fill_normal(~spec_.seed - i, spec_.dtype, spec_.q_magnitude, &q_[i * q_row_stride()],
                shape.d_qk);
  }
}

Problem Problem::relaid(std::int64_t page_block_size, std::int64_t token_padding,
                        std::int64_t q_padding) const {
  ProblemSpec spec = spec_;
  spec.page_block_size = page_block_size;
  spec.token_padding = token_padding;
  spec.q_padding = q_padding;
  spec.seed = spec_.seed + 1;
  spec.max_cache_elements = std::int64_t{1} << 40;  // sharing differs between page sizes
  Problem copy(spec);
  const MlaShape& shape = spec.shape;
  for (std::int64_t r = 0; r < num_requests(); ++r) {
    for (std::int64_t t = 0; t < spec.requests[r].context_len; ++t) {
      for (std::int64_t head = 0; head < shape.h_kv; ++head) {
        const std::uint16_t* from = view_.row(block_tables_[r].data(), t, head);
        std::copy_n(from, shape.d_qk, copy.mutable_kv_row(r, t, head));
      }
    }
  }
  for (std::int64_t i = 0; i < total_queries() * shape.h_q; ++i) {
    std::copy_n(&q_[i * q_row_stride()], shape.d_qk, &copy.q_[i * copy.q_row_stride()]);
  }
  return copy;
}

kernels::DecodeParams Problem::params(std::int64_t request, std::int64_t kv_head,
                                      Range rows) const {
  kernels::DecodeParams params = params_of_heads(request, kv_head, {0, spec_.shape.heads_per_kv()});
  params.rows = rows;
  return params;
}

kernels::DecodeParams Problem::params_of_heads(std::int64_t request, std::int64_t kv_head,
                                               Range heads) const {
  const MlaShape& shape = spec_.shape;
  const std::int64_t first_head = kv_head * shape.heads_per_kv() + heads.begin;
  kernels::DecodeParams params;
  params.shape = shape;
  params.chunk_tokens = spec_.chunk_tokens;
  params.scale_log2 = 1.44269504F / std::sqrt(static_cast<float>(shape.d_qk));
  params.kv = view_;
  params.kv.data = kv_.data();
  params.block_table = block_tables_[request].data();
  params.kv_head = kv_head;
  params.context_len = spec_.requests[request].context_len;
  params.q = q_.data() + (q_offsets_[request] * shape.h_q + first_head) * q_row_stride();
  params.q_token_stride = shape.h_q * q_row_stride();
  params.q_head_stride = q_row_stride();
  params.query_len = spec_.requests[request].query_len;
  params.heads = heads.size();
  params.rows = {0, params.query_len * params.heads};
  params.causal = spec_.causal;
  return params;
}

std::uint16_t* Problem::mutable_q_row(std::int64_t request, std::int64_t query, std::int64_t head) {
  return &q_[((q_offsets_[request] + query) * spec_.shape.h_q + head) * q_row_stride()];
}

std::uint16_t* Problem::mutable_kv_row(std::int64_t request, std::int64_t token,
                                       std::int64_t kv_head) {
  const std::uint16_t* row = view_.row(block_tables_[request].data(), token, kv_head);
  return kv_.data() + (row - view_.data);
}

}  // namespace mla::test
