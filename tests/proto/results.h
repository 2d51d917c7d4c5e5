#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/batch.h"
#include "core/result.h"
#include "proto/journal.h"
#include "proto/record_log.h"

namespace mla::proto {

inline const JournalHeader kJournalHeader{.input_hash = 11, .settings = "backend: a, combine: b"};

/// Requests "0", "1" ... (after `prefix`) of one or two query tokens, 4 heads and 16 values.
inline Batch journaled_batch(int requests, const std::string& prefix = "") {
  Batch batch;
  batch.shape = {.h_q = 4, .h_kv = 1, .d_qk = 24, .d_v = 16};
  for (int i = 0; i < requests; ++i) {
    batch.requests.push_back({.custom_id = prefix + std::to_string(i),
                              .query_len = i % 2 + 1,
                              .context_len = 8,
                              .block_table = {},
                              .q = {}});
  }
  return batch;
}

/// Results that tell every request, token and head apart.
inline ResultSlice journaled_slice(const Batch& batch, std::int64_t request, Range heads) {
  ResultSlice slice{.request = request, .heads = heads, .out = {}, .lse = {}};
  for (std::int64_t token = 0; token < batch.requests[request].query_len; ++token) {
    for (std::int64_t head = heads.begin; head < heads.end; ++head) {
      const auto mark = static_cast<std::byte>(16 * request + 4 * token + head);
      slice.out.insert(slice.out.end(),
                       static_cast<std::size_t>(batch.shape.d_v * size_of(batch.out_dtype)), mark);
      slice.lse.push_back(static_cast<float>(100 * request + 10 * token + head));
    }
  }
  return slice;
}

/// The result that slices of all heads make together.
inline Result journaled_result(const Batch& batch, std::int64_t request) {
  ResultSlice all = journaled_slice(batch, request, {0, batch.shape.h_q});
  return {.custom_id = batch.requests[request].custom_id,
          .query_len = batch.requests[request].query_len,
          .h_q = batch.shape.h_q,
          .d_v = batch.shape.d_v,
          .out_dtype = batch.out_dtype,
          .out = std::move(all.out),
          .lse = std::move(all.lse),
          .error = {}};
}

}  // namespace mla::proto
