#pragma once

#include <vector>

#include "core/generator.h"
#include "kernels/local_decode.h"

namespace mla::test {

/// Requests of one query token and 128 heads in chunks of 64 tokens, their tensors in memory.
class LocalProblem {
 public:
  explicit LocalProblem(const std::vector<std::int64_t>& context_lens) {
    batch_.shape = {.h_q = 128, .h_kv = 1, .d_qk = 40, .d_v = 32};
    batch_.chunk_tokens = 64;
    batch_.softmax_scale = 0.2;
    batch_.page_block_size = 16;
    for (const std::int64_t context_len : context_lens) {
      Request request;
      request.context_len = context_len;
      request.block_table.resize(batch_.num_blocks(request));
      for (std::int32_t& page : request.block_table) {
        page = static_cast<std::int32_t>(batch_.num_pages++);
      }
      batch_.requests.push_back(std::move(request));
    }
    kv_.resize(batch_.num_pages * batch_.page_elements());
    q_.resize(batch_.shape.h_q * batch_.shape.d_qk);
    generate_elements(1, GeneratedTensor::kKvCache, 0, 0, batch_.dtype, kv_);
    generate_elements(1, GeneratedTensor::kQuery, 0, 0, batch_.dtype, q_);
  }

  const Batch& batch() const { return batch_; }

  kernels::RankInputs inputs(std::span<const Piece> pieces) const {
    const std::int64_t d_qk = batch_.shape.d_qk;
    kernels::RankInputs inputs;
    inputs.kv = {kv_.data(), batch_.dtype, batch_.page_block_size, batch_.page_elements(),
                 d_qk,       d_qk};
    for (const Piece& piece : pieces) {
      inputs.pieces.push_back({.block_table = batch_.requests[piece.request].block_table.data(),
                               .q = q_.data() + piece.heads.begin * d_qk,
                               .first_head = piece.heads.begin,
                               .q_token_stride = batch_.shape.h_q * d_qk,
                               .q_head_stride = d_qk});
    }
    return inputs;
  }

 private:
  Batch batch_;
  std::vector<std::uint16_t> kv_;
  std::vector<std::uint16_t> q_;
};

}  // namespace mla::test
