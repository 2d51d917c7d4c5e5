#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "core/dtype.h"
#include "core/range.h"

namespace mla {

/// Tokens of one canonical chunk unless a batch says otherwise.
inline constexpr std::int64_t kDefaultChunkTokens = 512;

/// Sizes of the absorbed ("MQA-mode") MLA decode operator, as FlashMLA defines it.
struct MlaShape {
  std::int64_t h_q = 0;   ///< query heads
  std::int64_t h_kv = 1;  ///< heads of the cache; 1 for MLA. h_q % h_kv == 0
  std::int64_t d_qk = 0;  ///< elements of a query and of a cache row: d_v latent, the rest rope
  std::int64_t d_v = 0;   ///< the first elements of a cache row, which are V too

  std::int64_t heads_per_kv() const { return h_q / h_kv; }
  friend bool operator==(const MlaShape&, const MlaShape&) = default;
};

/// Where the elements of a tensor come from.
struct TensorSource {
  enum class Kind : std::uint8_t {
    kNone,         ///< lengths only: the batch can be planned, not decoded
    kSafetensors,  ///< `tensor` in `file`, a path relative to the batch file's folder
    kInline,       ///< `bytes`, little-endian elements in row-major order
    kGenerated,    ///< a pure function of `seed` and the element's place: core/generator.h
  };
  Kind kind = Kind::kNone;
  std::string file;
  std::string tensor;
  std::uint64_t seed = 0;
  std::vector<std::byte> bytes;

  friend bool operator==(const TensorSource&, const TensorSource&) = default;
};

/// One request: `query_len` new tokens attend to `context_len` cached ones (themselves included).
struct Request {
  std::string custom_id;
  std::int64_t query_len = 1;    ///< s_q, at least 1
  std::int64_t context_len = 0;  ///< seqlen_k, may be 0
  /// Page of each block of `page_block_size` tokens; entries past
  /// ceil(context_len / page_block_size) are garbage and never read.
  std::vector<std::int32_t> block_table;
  /// [query_len, h_q, d_qk]; generated ones are keyed by the request's position in the batch.
  TensorSource q;

  friend bool operator==(const Request&, const Request&) = default;
};

/// A batch of decode requests over one paged cache
/// `kv_cache[num_pages, page_block_size, h_kv, d_qk]`.
struct Batch {
  MlaShape shape;
  DType dtype = DType::kBf16;      ///< of q and of the cache: bf16 or fp16
  DType out_dtype = DType::kBf16;  ///< of the results: `dtype` or fp32
  std::int64_t page_block_size = 64;
  std::int64_t num_pages = 0;
  std::int64_t chunk_tokens = kDefaultChunkTokens;
  bool causal = true;  ///< query j of s_q sees keys k < context_len - (s_q - 1 - j)
  double softmax_scale = 0;
  TensorSource kv_cache;
  std::vector<Request> requests;

  std::int64_t num_chunks(const Request& r) const { return ceil_div(r.context_len, chunk_tokens); }
  std::int64_t num_blocks(const Request& r) const {
    return ceil_div(r.context_len, page_block_size);
  }
  std::int64_t page_elements() const { return page_block_size * shape.h_kv * shape.d_qk; }

  friend bool operator==(const Batch&, const Batch&) = default;
};

/// What planning needs: a batch without requests and tensors, a request without id, block table
/// and tensor.
Batch sizes_of(const Batch& batch);
Request sizes_of(const Request& request);

/// Where each request's tokens begin when the query tokens of all requests are numbered one after
/// the other: [requests + 1].
std::vector<std::int64_t> query_offsets(const Batch& batch);

/// The blocks of a request's block table that hold some of its chunks.
Range blocks_of(const Batch& batch, const Request& request, Range chunks);

/// What `validate` asks of block tables and tensors.
enum class ValidateFor : std::uint8_t { kPlanning, kDecoding };

/// Checks every field that later code relies on (never the tensors' contents). A batch for planning
/// may lack block tables and tensor sources.
/// @throws FormatError naming the first wrong field, as in `requests[3].context_len`.
void validate(const Batch& batch, ValidateFor purpose);

/// The part of `validate` that concerns neither requests nor tensors.
void validate_sizes(const Batch& batch);

/// The part of `validate` that concerns no single request, and that ids differ.
void validate_header(const Batch& batch, ValidateFor purpose);

/// The part of `validate` that concerns request `index` alone; the header must be valid.
void validate_request(const Batch& batch, std::int64_t index, ValidateFor purpose);

}  // namespace mla
