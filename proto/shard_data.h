#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <vector>

#include "core/batch.h"
#include "core/kv_view.h"
#include "core/partition.h"
#include "proto/file_io.h"

namespace mla::proto {

class SourceFiles;

/// Queries of one piece, not owned: element d of head h (counted from the piece's first) of query
/// token j lies at `data[j * token_stride + h * head_stride + d]`.
struct QueryView {
  const std::uint16_t* data = nullptr;
  std::int64_t token_stride = 0;
  std::int64_t head_stride = 0;
};

/// The tensors that one rank's pieces read, and no more: of a cache in a safetensors file the
/// pages are read, or the file is mapped where nearly all of it is needed; generated pages are made
/// once each, in this object's memory; inline tensors are read where they lie in the batch. The
/// batch must outlive it.
class ShardData {
 public:
  /// Opens and makes the tensors, with `threads` threads; each makes the pages that it will read by
  /// `make_split_plan(batch, pieces, threads)`. Relative files lie in `base_dir`. Local.
  /// The batch must be valid for decoding.
  /// @throws FormatError naming file, tensor, found and expected; Error if memory is short.
  ShardData(const Batch& batch, const std::filesystem::path& base_dir,
            std::span<const Piece> pieces, int threads);
  ShardData(ShardData&&) noexcept;
  ~ShardData();

  /// The cache, to be read through `block_table`.
  const KvView& kv() const { return kv_; }

  /// Page of each block of the piece's request, as places in `kv()`. Only the entries
  /// `blocks_of(batch, request, piece.chunks)` are valid.
  const std::int32_t* block_table(std::int64_t piece) const { return block_tables_[piece]; }

  /// All query tokens of the piece's heads.
  QueryView query(std::int64_t piece) const { return queries_[piece]; }

  /// Bytes of the distinct cache pages and of the queries that the pieces read.
  std::int64_t resident_bytes() const { return resident_bytes_; }

 private:
  class Builder;

  KvView kv_;
  std::vector<const std::int32_t*> block_tables_;  // [pieces]
  std::vector<QueryView> queries_;                 // [pieces]
  std::int64_t resident_bytes_ = 0;
  std::unique_ptr<SourceFiles> files_;
  MappedMemory kv_memory_;
  MappedMemory table_memory_;
  MappedMemory query_memory_;
};

}  // namespace mla::proto
