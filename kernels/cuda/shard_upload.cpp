#include "kernels/cuda/shard_upload.h"

#include <algorithm>
#include <cstring>

namespace mla::kernels::cuda {
namespace {

/// The host's pages that the pieces read, ascending: a page's place here is its number on the GPU.
std::vector<std::int32_t> pages_of(const Batch& batch, std::span<const Piece> pieces,
                                   const RankInputs& inputs) {
  std::vector<std::int32_t> pages;
  for (std::size_t p = 0; p < pieces.size(); ++p) {
    const Range blocks = blocks_of(batch, batch.requests[pieces[p].request], pieces[p].chunks);
    const std::int32_t* table = inputs.pieces[p].block_table;
    if (!blocks.empty()) pages.insert(pages.end(), table + blocks.begin, table + blocks.end);
  }
  std::sort(pages.begin(), pages.end());
  pages.erase(std::unique(pages.begin(), pages.end()), pages.end());
  return pages;
}

}  // namespace

ShardUpload::ShardUpload(const Batch& batch, std::span<const Piece> pieces,
                         const RankInputs& inputs, const Stream& stream) {
  upload_pages(batch, pieces, inputs, stream);
  upload_queries(batch, pieces, inputs, stream);
}

void ShardUpload::upload_pages(const Batch& batch, std::span<const Piece> pieces,
                               const RankInputs& inputs, const Stream& stream) {
  const std::vector<std::int32_t> pages = pages_of(batch, pieces, inputs);
  num_pages_ = std::ssize(pages);
  const std::int64_t page_bytes = inputs.kv.page_stride * size_of(inputs.kv.dtype);
  kv_ = DeviceBuffer(num_pages_ * page_bytes, "cache pages");
  for (std::int64_t begin = 0, end = 0; begin < num_pages_; begin = end) {
    while (end < num_pages_ && pages[end] - pages[begin] == end - begin) ++end;
    stream.upload(kv_.data() + begin * page_bytes,
                  inputs.kv.data + pages[begin] * inputs.kv.page_stride,
                  (end - begin) * page_bytes);
  }

  std::vector<std::int32_t> tables;
  for (std::size_t p = 0; p < pieces.size(); ++p) {
    const Range blocks = blocks_of(batch, batch.requests[pieces[p].request], pieces[p].chunks);
    table_begins_.push_back(std::ssize(tables) - blocks.begin);
    for (std::int64_t block = blocks.begin; block < blocks.end; ++block) {
      const auto page =
          std::lower_bound(pages.begin(), pages.end(), inputs.pieces[p].block_table[block]);
      tables.push_back(static_cast<std::int32_t>(page - pages.begin()));
    }
  }
  const std::int64_t table_bytes = std::ssize(tables) * std::int64_t{sizeof(std::int32_t)};
  tables_ = DeviceBuffer(table_bytes, "block tables");
  stream.upload(tables_.data(), tables.data(), table_bytes);
  stream.synchronise();  // the tables go out of scope
}

void ShardUpload::upload_queries(const Batch& batch, std::span<const Piece> pieces,
                                 const RankInputs& inputs, const Stream& stream) {
  token_begins_ = {0};
  for (const Piece& piece : pieces) {
    heads_ = std::max(heads_, piece.heads.size());
    token_begins_.push_back(token_begins_.back() + batch.requests[piece.request].query_len);
  }
  const std::int64_t row_bytes = batch.shape.d_qk * size_of(batch.dtype);
  const std::int64_t bytes = tokens() * heads_ * row_bytes;
  staging_ = PinnedBuffer(bytes);
  for (std::size_t p = 0; p < pieces.size(); ++p) {
    const PieceInputs& from = inputs.pieces[p];
    const std::int64_t first = token_begins_[p];
    for (std::int64_t token = first; token < token_begins_[p + 1]; ++token) {
      for (std::int64_t h = 0; h < pieces[p].heads.size(); ++h) {
        const std::int64_t head = pieces[p].heads.begin - from.first_head + h;
        std::memcpy(staging_.data() + (token * heads_ + h) * row_bytes,
                    from.q + (token - first) * from.q_token_stride + head * from.q_head_stride,
                    static_cast<std::size_t>(row_bytes));
      }
    }
  }
  q_ = DeviceBuffer(bytes, "queries");
  stream.upload(q_.data(), staging_.data(), bytes);
}

}  // namespace mla::kernels::cuda
