#pragma once

#include <algorithm>
#include <vector>

#include "core/generator.h"
#include "kernels/local_decode.h"

namespace mla::test {

/// What decides a LocalProblem. Chunks are 64 tokens.
struct LocalSpec {
  std::vector<std::int64_t> context_lens;
  std::int64_t query_len = 1;
  std::int64_t heads = 128;
  std::int64_t page_block_size = 16;
  std::int64_t d_qk = 40;
  std::int64_t d_v = 32;
};

/// Requests of equal query length, their tensors in memory. The tensors depend on the lengths and
/// the heads only, not on the page size; pages lie in reverse order.
class LocalProblem {
 public:
  explicit LocalProblem(const std::vector<std::int64_t>& context_lens)
      : LocalProblem(LocalSpec{context_lens}) {}

  explicit LocalProblem(const LocalSpec& spec) {
    batch_.shape = {.h_q = spec.heads, .h_kv = 1, .d_qk = spec.d_qk, .d_v = spec.d_v};
    batch_.chunk_tokens = 64;
    batch_.softmax_scale = 0.2;
    batch_.page_block_size = spec.page_block_size;
    for (const std::int64_t context_len : spec.context_lens) {
      Request request;
      request.query_len = spec.query_len;
      request.context_len = context_len;
      request.block_table.resize(batch_.num_blocks(request));
      batch_.num_pages += std::ssize(request.block_table);
      batch_.requests.push_back(std::move(request));
    }
    kv_.resize(batch_.num_pages * batch_.page_elements());
    std::int64_t page = batch_.num_pages;
    for (std::size_t i = 0; i < batch_.requests.size(); ++i) {
      for (std::int32_t& entry : batch_.requests[i].block_table) {
        entry = static_cast<std::int32_t>(--page);
      }
      fill_cache(static_cast<std::int64_t>(i));
    }
    q_.resize(batch_.requests.size() * query_elements());
    generate_elements(1, GeneratedTensor::kQuery, 0, 0, batch_.dtype, q_);
  }

  const Batch& batch() const { return batch_; }

  kernels::RankInputs inputs(std::span<const Piece> pieces) const {
    const std::int64_t d_qk = batch_.shape.d_qk;
    kernels::RankInputs inputs;
    inputs.kv = {kv_.data(), batch_.dtype, batch_.page_block_size, batch_.page_elements(),
                 d_qk,       d_qk};
    for (const Piece& piece : pieces) {
      inputs.pieces.push_back(
          {.block_table = batch_.requests[piece.request].block_table.data(),
           .q = q_.data() + piece.request * query_elements() + piece.heads.begin * d_qk,
           .first_head = piece.heads.begin,
           .q_token_stride = batch_.shape.h_q * d_qk,
           .q_head_stride = d_qk});
    }
    return inputs;
  }

 private:
  std::int64_t query_elements() const {
    const std::int64_t tokens = batch_.requests.empty() ? 0 : batch_.requests[0].query_len;
    return tokens * batch_.shape.h_q * batch_.shape.d_qk;
  }

  void fill_cache(std::int64_t request) {
    const Request& r = batch_.requests[request];
    const std::int64_t d_qk = batch_.shape.d_qk;
    std::vector<std::uint16_t> rows(r.context_len * d_qk);
    generate_elements(1, GeneratedTensor::kKvCache, request, 0, batch_.dtype, rows);
    for (std::int64_t token = 0; token < r.context_len; ++token) {
      const std::int64_t page = r.block_table[token / batch_.page_block_size];
      std::copy_n(
          rows.data() + token * d_qk, d_qk,
          kv_.data() + page * batch_.page_elements() + token % batch_.page_block_size * d_qk);
    }
  }

  Batch batch_;
  std::vector<std::uint16_t> kv_;
  std::vector<std::uint16_t> q_;
};

}  // namespace mla::test
