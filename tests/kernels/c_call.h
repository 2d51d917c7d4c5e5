#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "kernels/meshmla.h"
#include "tests/support/runner.h"

namespace mla::test {

/// A problem as arguments of the C interface: everything strided, with room between the rows of the
/// results. Unused table entries hold 2147480000. Points into the problem.
class CCall {
 public:
  /// @param gap elements after each row of out and each lse
  explicit CCall(const Problem& problem, std::int32_t out_dtype = 0, std::int64_t gap = 3) {
    const ProblemSpec& s = problem.spec();
    const kernels::DecodeParams first = problem.params(0, 0, {0, 1});
    std::int64_t blocks = 0;
    for (const RequestSizes& r : s.requests) {
      seqlens_k_.push_back(static_cast<std::int32_t>(r.context_len));
      q_offsets_.push_back(q_offsets_.back() + static_cast<std::int32_t>(r.query_len));
      blocks = std::max(blocks, ceil_div(r.context_len, s.page_block_size) + 2);
    }
    tables_.assign(s.requests.size() * blocks, 2147480000);
    for (std::int64_t r = 0; r < problem.num_requests(); ++r) {
      const std::int64_t used = ceil_div(s.requests[r].context_len, s.page_block_size);
      if (used > 0) {
        std::copy_n(problem.params(r, 0, {0, 1}).block_table, used, tables_.data() + r * blocks);
      }
    }
    spec.struct_size = sizeof spec;
    spec.batch = problem.num_requests();
    spec.seqlens_k = seqlens_k_.data();
    spec.q_offsets = q_offsets_.data();
    spec.h_q = s.shape.h_q;
    spec.h_kv = s.shape.h_kv;
    spec.d_qk = s.shape.d_qk;
    spec.d_v = s.shape.d_v;
    spec.page_block_size = s.page_block_size;
    spec.chunk_tokens = s.chunk_tokens;
    spec.dtype = s.dtype == DType::kBf16 ? MLA_BF16 : MLA_FP16;
    spec.out_dtype = out_dtype;
    spec.causal = s.causal ? 1 : 0;
    spec.threads = 2;
    spec.q_token_stride = first.q_token_stride;
    spec.q_head_stride = first.q_head_stride;
    spec.kv_page_stride = first.kv.page_stride;
    spec.kv_token_stride = first.kv.token_stride;
    spec.kv_head_stride = first.kv.head_stride;
    spec.block_table_stride = blocks;
    spec.out_head_stride = s.shape.d_v + gap;
    spec.out_token_stride = s.shape.h_q * spec.out_head_stride + gap;
    spec.lse_head_stride = 1 + gap;
    spec.lse_token_stride = s.shape.h_q * spec.lse_head_stride + gap;

    total_q_ = problem.total_queries();
    const std::int64_t element = out_dtype == MLA_FP32 ? 4 : 2;
    out.assign(total_q_ * spec.out_token_stride * element, std::byte{0xff});
    lse.assign(total_q_ * spec.lse_token_stride, kPoison);
    operands.struct_size = sizeof operands;
    operands.q = first.q;
    operands.kv = first.kv.data;
    operands.num_pages = 2147483647;
    operands.block_tables = tables_.data();
    operands.out = out.data();
    operands.lse = lse.data();
  }

  /// The results without their gaps.
  Results results() const {
    Results results;
    for (std::int64_t t = 0; t < total_q_; ++t) {
      for (std::int64_t h = 0; h < spec.h_q; ++h) {
        results.lse.push_back(lse[t * spec.lse_token_stride + h * spec.lse_head_stride]);
        for (std::int64_t d = 0; d < spec.d_v; ++d) {
          results.out.push_back(
              out_element(t * spec.out_token_stride + h * spec.out_head_stride + d));
        }
      }
    }
    return results;
  }

  /// Elements and floats that were written.
  std::int64_t written() const {
    const std::int64_t element = spec.out_dtype == MLA_FP32 ? 4 : 2;
    std::int64_t count = 0;
    for (std::int64_t i = 0; i < std::ssize(out) / element; ++i) {
      const auto begin = out.begin() + i * element;
      const bool poisoned =
          std::all_of(begin, begin + element, [](std::byte b) { return b == std::byte{0xff}; });
      count += poisoned ? 0 : 1;
    }
    return count + std::count_if(lse.begin(), lse.end(), [](float x) { return x != kPoison; });
  }

  mla_plan_spec spec{};
  mla_operands operands{};
  std::vector<std::byte> out;
  std::vector<float> lse;

 private:
  static constexpr float kPoison = -12345;

  float out_element(std::int64_t i) const {
    if (spec.out_dtype == MLA_FP32) return reinterpret_cast<const float*>(out.data())[i];
    const std::uint16_t bits = reinterpret_cast<const std::uint16_t*>(out.data())[i];
    return to_float(static_cast<DType>(spec.dtype), bits);
  }

  std::int64_t total_q_ = 0;
  std::vector<std::int32_t> seqlens_k_;
  std::vector<std::int32_t> q_offsets_{0};
  std::vector<std::int32_t> tables_;
};

/// The fastest backend that takes host memory.
inline std::string best_host_backend() {
  return std::string(kernels::find_host_backend("auto").name());
}

/// A plan and its workspace in host memory.
class CPlan {
 public:
  CPlan(const std::string& backend, const mla_plan_spec& spec) {
    status_ = mla_plan_create(backend.c_str(), &spec, &plan_);
    if (status_ != MLA_OK) return;
    std::int64_t host_bytes = 0;
    mla_plan_workspace_bytes(plan_, &host_bytes, nullptr);
    workspace_ = std::make_unique<AlignedBytes>(host_bytes);
    status_ = mla_plan_bind(plan_, workspace_->data(), nullptr, nullptr);
  }
  CPlan(const CPlan&) = delete;
  CPlan& operator=(const CPlan&) = delete;
  ~CPlan() { mla_plan_destroy(plan_); }

  mla_status status() const { return status_; }
  mla_plan* get() const { return plan_; }

 private:
  mla_plan* plan_ = nullptr;
  std::unique_ptr<AlignedBytes> workspace_;
  mla_status status_ = MLA_OK;
};

}  // namespace mla::test
