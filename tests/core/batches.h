#pragma once

#include <string>
#include <vector>

#include "core/batch.h"

namespace mla::test {

/// A batch for planning with one request of query length 1 per entry of `context_lens`, no block
/// tables, DeepSeek's row sizes and chunks of 64 tokens.
inline Batch planning_batch(const std::vector<std::int64_t>& context_lens, std::int64_t h_q = 16) {
  Batch batch;
  batch.shape = {.h_q = h_q, .h_kv = 1, .d_qk = 576, .d_v = 512};
  batch.chunk_tokens = 64;
  batch.softmax_scale = 0.1;
  for (std::size_t i = 0; i < context_lens.size(); ++i) {
    Request request;
    request.custom_id = "request-" + std::to_string(i);
    request.context_len = context_lens[i];
    batch.requests.push_back(request);
  }
  return batch;
}

/// Every request reads pages of its own, in order.
inline void add_private_pages(Batch& batch) {
  batch.num_pages = 0;
  for (Request& request : batch.requests) {
    request.block_table.resize(batch.num_blocks(request));
    for (std::int32_t& page : request.block_table) {
      page = static_cast<std::int32_t>(batch.num_pages++);
    }
  }
}

}  // namespace mla::test
