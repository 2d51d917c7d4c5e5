#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/batch.h"
#include "core/partition.h"
#include "kernels/cuda/runtime.h"
#include "kernels/node_decoder.h"

namespace mla::kernels::cuda {

/// The tensors of one rank in a GPU's memory.
///
///   kv            [pages, ...]        the pages that the pieces read, each once, as they lie in
///   the
///                                     host's cache
///   block tables  of each piece, the blocks of its chunks
///   q             [tokens, heads, d_qk]   the query tokens of the pieces one after the other;
///                                     `heads` of the piece that has most
class ShardUpload {
 public:
  /// Enqueues the copying on `stream`. `inputs` must stay as they are until it has ended.
  ShardUpload(const Batch& batch, std::span<const Piece> pieces, const RankInputs& inputs,
              const Stream& stream);

  const DeviceBuffer& kv() const { return kv_; }
  std::int64_t num_pages() const { return num_pages_; }
  const DeviceBuffer& block_tables() const { return tables_; }
  /// Entry of block 0 of the piece's table; that of a block which no chunk of it needs may lie
  /// outside of the tables.
  std::int64_t table_begin(std::int64_t piece) const { return table_begins_[piece]; }
  const DeviceBuffer& q() const { return q_; }
  std::int64_t heads() const { return heads_; }
  std::int64_t tokens() const { return token_begins_.back(); }
  std::int64_t token_begin(std::int64_t piece) const { return token_begins_[piece]; }

 private:
  void upload_pages(const Batch& batch, std::span<const Piece> pieces, const RankInputs& inputs,
                    const Stream& stream);
  void upload_queries(const Batch& batch, std::span<const Piece> pieces, const RankInputs& inputs,
                      const Stream& stream);

  DeviceBuffer kv_;
  DeviceBuffer tables_;
  DeviceBuffer q_;
  PinnedBuffer staging_;  // of tables and queries
  std::int64_t num_pages_ = 0;
  std::int64_t heads_ = 0;
  std::vector<std::int64_t> table_begins_;
  std::vector<std::int64_t> token_begins_;  // [pieces + 1]
};

}  // namespace mla::kernels::cuda
