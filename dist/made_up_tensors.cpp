#include "dist/made_up_tensors.h"

#include <algorithm>

#include "core/contiguous_view.h"
#include "core/generator.h"

namespace mla::dist {
namespace {

/// Pages that differ, for the blocks of all pieces.
std::int64_t count_pages(const Batch& batch, std::span<const Piece> pieces) {
  std::int64_t blocks = 0;
  for (const Piece& piece : pieces) {
    blocks += blocks_of(batch, batch.requests[piece.request], piece.chunks).size();
  }
  const std::int64_t most =
      MadeUpTensors::kMostCacheBytes / (batch.page_elements() * size_of(batch.dtype));
  return std::min(blocks, std::max<std::int64_t>(most, 1));
}

}  // namespace

MadeUpTensors::MadeUpTensors(const Batch& batch, std::span<const Piece> pieces) {
  const std::int64_t pages = count_pages(batch, pieces);
  const std::int64_t page = batch.page_elements();
  cache_ = AlignedBuffer<std::uint16_t>(static_cast<std::size_t>(pages * page));
  for (std::int64_t p = 0; p < pages; ++p) {
    const auto elements =
        cache_.span().subspan(static_cast<std::size_t>(p * page), static_cast<std::size_t>(page));
    if (p == 0) {
      generate_elements(0, GeneratedTensor::kKvCache, 0, 0, batch.dtype, elements);
    } else {
      std::copy_n(cache_.data(), page, elements.data());
    }
  }
  const MlaShape& shape = batch.shape;
  std::int64_t query_len = 0;
  for (const Piece& piece : pieces) {
    query_len = std::max(query_len, batch.requests[piece.request].query_len);
  }
  query_.resize(static_cast<std::size_t>(query_len * shape.h_q * shape.d_qk));
  generate_elements(0, GeneratedTensor::kQuery, 0, 0, batch.dtype, query_);
  inputs_.kv = contiguous_view(batch, cache_.data());
  std::int64_t next_page = 0;
  for (const Piece& piece : pieces) {
    const Range blocks = blocks_of(batch, batch.requests[piece.request], piece.chunks);
    std::vector<std::int32_t>& table = block_tables_.emplace_back(blocks.end);
    for (std::int64_t b = blocks.begin; b < blocks.end; ++b) {
      table[b] = static_cast<std::int32_t>(next_page++ % pages);
    }
    inputs_.pieces.push_back({.block_table = table.data(),
                              .q = query_.data() + piece.heads.begin * shape.d_qk,
                              .first_head = piece.heads.begin,
                              .q_token_stride = shape.h_q * shape.d_qk,
                              .q_head_stride = shape.d_qk});
  }
}

}  // namespace mla::dist
