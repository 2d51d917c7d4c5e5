#include "tests/support/problem.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>

namespace mla::test {
namespace {

constexpr std::int32_t kGarbageEntry = 2147480000;
constexpr std::int64_t kGarbageEntries = 3;

}  // namespace

ProblemLayout::ProblemLayout(const ProblemSpec& spec) : spec_(spec), q_offsets_{0} {
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
    q_offsets_.push_back(q_offsets_.back() + request.query_len);
    full += request.context_len / page;
    partial += request.context_len % page != 0;
  }
  const std::int64_t cap = std::max<std::int64_t>(1, spec_.max_cache_elements / view_.page_stride);
  const std::int64_t shared = std::min(full, cap);
  const std::int64_t unused = 2 + (shared + partial) / 8;
  std::vector<std::int32_t> order(shared + partial + unused);
  std::iota(order.begin(), order.end(), 0);
  std::shuffle(order.begin(), order.end(), std::mt19937_64(spec_.seed));

  pages_.resize(order.size());
  std::int64_t next_full = 0;
  std::int64_t next_partial = shared;
  for (std::int64_t r = 0; r < num_requests(); ++r) {
    std::vector<std::int32_t> table;
    for (std::int64_t left = spec_.requests[r].context_len; left > 0; left -= page) {
      const bool is_full = left >= page;
      table.push_back(order[is_full ? next_full++ % shared : next_partial++]);
      PageTokens& tokens = pages_[table.back()];
      if (tokens.tokens > 0) continue;  // shared, and an earlier request's
      tokens = {spec_.requests[r].context_len - left, static_cast<std::int32_t>(r),
                static_cast<std::int32_t>(std::min(left, page))};
    }
    table.insert(table.end(), kGarbageEntries, kGarbageEntry);
    block_tables_.push_back(std::move(table));
  }
}

float ProblemLayout::scale_log2() const {
  return 1.44269504F / std::sqrt(static_cast<float>(spec_.shape.d_qk));
}

Problem::Problem(const ProblemSpec& spec) : ProblemLayout(spec) {
  fill_cache();
  fill_queries();
}

void Problem::fill_cache() {
  const MlaShape& shape = spec().shape;
  const RandomRows random = spec().random_rows();
  kv_.assign(std::ssize(pages()) * view().page_stride, kNanBits);
  std::uint16_t* page = kv_.data();
  for (const PageTokens& tokens : pages()) {
    for (std::int64_t slot = 0; slot < tokens.tokens; ++slot) {
      for (std::int64_t head = 0; head < shape.h_kv; ++head) {
        const RandomRow row =
            random.kv(tokens.request * shape.h_kv + head, tokens.first_token + slot);
        std::uint16_t* to = page + slot * view().token_stride + head * view().head_stride;
        for (std::int64_t i = 0; i < shape.d_qk; ++i) to[i] = row[i];
      }
    }
    page += view().page_stride;
  }
}

void Problem::fill_queries() {
  const MlaShape& shape = spec().shape;
  const RandomRows random = spec().random_rows();
  q_.assign(total_queries() * shape.h_q * q_row_stride(), kNanBits);
  for (std::int64_t r = 0; r < total_queries() * shape.h_q; ++r) {
    const RandomRow row = random.q(r);
    for (std::int64_t i = 0; i < shape.d_qk; ++i) q_[r * q_row_stride() + i] = row[i];
  }
}

Problem Problem::relaid(std::int64_t page_block_size, std::int64_t token_padding,
                        std::int64_t q_padding) const {
  ProblemSpec spec = this->spec();
  spec.page_block_size = page_block_size;
  spec.token_padding = token_padding;
  spec.q_padding = q_padding;
  ++spec.seed;
  spec.max_cache_elements = std::int64_t{1} << 40;  // sharing differs between page sizes
  Problem copy(spec);
  const MlaShape& shape = spec.shape;
  for (std::int64_t r = 0; r < num_requests(); ++r) {
    for (std::int64_t t = 0; t < spec.requests[r].context_len; ++t) {
      for (std::int64_t head = 0; head < shape.h_kv; ++head) {
        std::copy_n(&kv_[kv_row(r, t, head)], shape.d_qk, copy.mutable_kv_row(r, t, head));
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
  kernels::DecodeParams params =
      params_of_heads(request, kv_head, {0, spec().shape.heads_per_kv()});
  params.rows = rows;
  return params;
}

kernels::DecodeParams Problem::params_of_heads(std::int64_t request, std::int64_t kv_head,
                                               Range heads) const {
  const MlaShape& shape = spec().shape;
  const std::int64_t first_head = kv_head * shape.heads_per_kv() + heads.begin;
  kernels::DecodeParams params;
  params.shape = shape;
  params.chunk_tokens = spec().chunk_tokens;
  params.scale_log2 = scale_log2();
  params.kv = view();
  params.kv.data = kv_.data();
  params.block_table = block_table(request).data();
  params.kv_head = kv_head;
  params.context_len = spec().requests[request].context_len;
  params.q = q_.data() + (q_offset(request) * shape.h_q + first_head) * q_row_stride();
  params.q_token_stride = shape.h_q * q_row_stride();
  params.q_head_stride = q_row_stride();
  params.query_len = spec().requests[request].query_len;
  params.heads = heads.size();
  params.rows = {0, params.query_len * params.heads};
  params.causal = spec().causal;
  return params;
}

std::uint16_t* Problem::mutable_q_row(std::int64_t request, std::int64_t query, std::int64_t head) {
  return &q_[((q_offset(request) + query) * spec().shape.h_q + head) * q_row_stride()];
}

std::uint16_t* Problem::mutable_kv_row(std::int64_t request, std::int64_t token,
                                       std::int64_t kv_head) {
  return &kv_[kv_row(request, token, kv_head)];
}

std::int64_t Problem::kv_row(std::int64_t request, std::int64_t token, std::int64_t kv_head) const {
  const std::int64_t page = block_table(request)[token / view().page_block_size];
  return page * view().page_stride + token % view().page_block_size * view().token_stride +
         kv_head * view().head_stride;
}

}  // namespace mla::test
