#include "core/cost_model.h"

#include <algorithm>

namespace mla {

std::int64_t tokens_in_chunk(const Batch& batch, const Request& request, std::int64_t chunk) {
  const std::int64_t first = chunk * batch.chunk_tokens;
  return std::min(batch.chunk_tokens, request.context_len - first);
}

double CostModel::tile_chunk(const Batch& batch, const Request& request, std::int64_t chunk,
                             std::int64_t rows) const {
  const MlaShape& shape = batch.shape;
  const auto tokens = static_cast<double>(tokens_in_chunk(batch, request, chunk));
  const std::int64_t whole = round_up(rows, kRowsPerVector);
  const double value_rows =
      static_cast<double>(rows) + padded_values * static_cast<double>(whole - rows);
  const double flop =
      2 * tokens *
      (static_cast<double>(whole * shape.d_qk) + value_rows * static_cast<double>(shape.d_v));
  const double kv_bytes = tokens * static_cast<double>(shape.d_qk * size_of(batch.dtype));
  const auto merged_floats = static_cast<double>(rows * shape.d_v);
  return flop + kv_bytes * flop_per_kv_byte + merged_floats * flop_per_merged_float;
}

double CostModel::chunk(const Batch& batch, const Request& request, std::int64_t chunk,
                        std::int64_t heads) const {
  const std::int64_t kv_heads = ceil_div(heads, batch.shape.heads_per_kv());
  const std::int64_t rows_per_kv_head = ceil_div(request.query_len * heads, kv_heads);
  return static_cast<double>(kv_heads) * tile_chunk(batch, request, chunk, rows_per_kv_head);
}

}  // namespace mla
