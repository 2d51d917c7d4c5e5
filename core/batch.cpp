#include "core/batch.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <unordered_set>

#include "core/error.h"

namespace mla {
namespace {

constexpr std::int64_t kMaxHeads = 1 << 16;
constexpr std::int64_t kMaxRowElements = 1 << 16;
constexpr std::int64_t kMaxQueryLen = 1 << 20;
constexpr std::int64_t kMaxContextLen = std::int64_t{1} << 40;
constexpr std::int64_t kMaxPageBlockSize = 1 << 20;
constexpr std::int64_t kMaxChunkTokens = 1 << 20;
constexpr std::int64_t kMaxCustomIdBytes = 1024;
constexpr std::int64_t kMaxPoolElements = std::int64_t{1} << 50;

void check_range(const std::string& field, std::int64_t value, std::int64_t least,
                 std::int64_t most) {
  if (value < least || value > most) {
    throw FormatError(field, std::to_string(value),
                      std::to_string(least) + " to " + std::to_string(most));
  }
}

void check_inline_bytes(const std::string& field, const TensorSource& source, std::int64_t elements,
                        DType dtype) {
  if (source.kind != TensorSource::Kind::kInline) return;
  const std::int64_t expected = elements * size_of(dtype);
  if (static_cast<std::int64_t>(source.bytes.size()) != expected) {
    throw FormatError(field, std::to_string(source.bytes.size()) + " inline bytes",
                      std::to_string(expected));
  }
}

}  // namespace

void validate_sizes(const Batch& batch) {
  const MlaShape& shape = batch.shape;
  check_range("shape.h_q", shape.h_q, 1, kMaxHeads);
  check_range("shape.h_kv", shape.h_kv, 1, kMaxHeads);
  if (shape.h_q % shape.h_kv != 0) {
    throw FormatError("shape.h_kv", std::to_string(shape.h_kv),
                      "a divisor of h_q, which is " + std::to_string(shape.h_q));
  }
  check_range("shape.d_v", shape.d_v, 16, kMaxRowElements);
  if (shape.d_v % 16 != 0) {
    throw FormatError("shape.d_v", std::to_string(shape.d_v), "a multiple of 16");
  }
  check_range("shape.d_qk", shape.d_qk, shape.d_v, kMaxRowElements);
  if ((shape.d_qk - shape.d_v) % 8 != 0) {
    throw FormatError("shape.d_qk", std::to_string(shape.d_qk),
                      "d_v (" + std::to_string(shape.d_v) + ") plus a multiple of 8");
  }
  if (batch.dtype == DType::kFp32) throw FormatError("dtype", "fp32", "bf16 or fp16");
  if (batch.out_dtype != batch.dtype && batch.out_dtype != DType::kFp32) {
    throw FormatError("out_dtype", name_of(batch.out_dtype),
                      std::string(name_of(batch.dtype)) + " (the batch's dtype) or fp32");
  }
  check_range("page_block_size", batch.page_block_size, 1, kMaxPageBlockSize);
  check_range("num_pages", batch.num_pages, 0, std::numeric_limits<std::int32_t>::max());
  check_range("chunk_tokens", batch.chunk_tokens, 64, kMaxChunkTokens);
  if (batch.chunk_tokens % 64 != 0) {
    throw FormatError("chunk_tokens", std::to_string(batch.chunk_tokens), "a multiple of 64");
  }
  if (!std::isfinite(batch.softmax_scale) || batch.softmax_scale <= 0 ||
      batch.softmax_scale > 1e6) {
    throw FormatError("softmax_scale", std::to_string(batch.softmax_scale),
                      "a positive number up to 1e6");
  }
  if (batch.num_pages > kMaxPoolElements / batch.page_elements()) {
    throw FormatError("num_pages", std::to_string(batch.num_pages),
                      "a pool of at most 2^50 elements, that is " +
                          std::to_string(kMaxPoolElements / batch.page_elements()) + " pages");
  }
}

Batch sizes_of(const Batch& batch) {
  return {.shape = batch.shape,
          .dtype = batch.dtype,
          .out_dtype = batch.out_dtype,
          .page_block_size = batch.page_block_size,
          .num_pages = batch.num_pages,
          .chunk_tokens = batch.chunk_tokens,
          .causal = batch.causal,
          .softmax_scale = batch.softmax_scale,
          .kv_cache = {},
          .requests = {}};
}

Request sizes_of(const Request& request) {
  return {.custom_id = {},
          .query_len = request.query_len,
          .context_len = request.context_len,
          .block_table = {},
          .q = {}};
}

std::vector<std::int64_t> query_offsets(const Batch& batch) {
  std::vector<std::int64_t> offsets{0};
  for (const Request& request : batch.requests) {
    offsets.push_back(offsets.back() + request.query_len);
  }
  return offsets;
}

Range blocks_of(const Batch& batch, const Request& request, Range chunks) {
  if (chunks.empty()) return {};
  const std::int64_t last_token = std::min(chunks.end * batch.chunk_tokens, request.context_len);
  return {chunks.begin * batch.chunk_tokens / batch.page_block_size,
          ceil_div(last_token, batch.page_block_size)};
}

void validate_header(const Batch& batch, ValidateFor purpose) {
  validate_sizes(batch);
  if (batch.kv_cache.kind == TensorSource::Kind::kNone && purpose == ValidateFor::kDecoding) {
    throw FormatError("kv_cache", "no source (this batch holds lengths only)",
                      "safetensors, inline data or a generator");
  }
  check_inline_bytes("kv_cache", batch.kv_cache, batch.num_pages * batch.page_elements(),
                     batch.dtype);
  if (batch.requests.empty()) throw FormatError("requests", "0", "at least 1");
  std::unordered_set<std::string_view> ids;
  for (std::size_t i = 0; i < batch.requests.size(); ++i) {
    if (!ids.insert(batch.requests[i].custom_id).second) {
      throw FormatError("requests[" + std::to_string(i) + "].custom_id",
                        "'" + batch.requests[i].custom_id + "'",
                        "an id that no earlier request has");
    }
  }
}

void validate_request(const Batch& batch, std::int64_t index, ValidateFor purpose) {
  const Request& request = batch.requests[index];
  const std::string field = "requests[" + std::to_string(index) + "]";
  if (request.custom_id.empty() ||
      static_cast<std::int64_t>(request.custom_id.size()) > kMaxCustomIdBytes) {
    throw FormatError(field + ".custom_id", std::to_string(request.custom_id.size()) + " bytes",
                      "1 to " + std::to_string(kMaxCustomIdBytes));
  }
  check_range(field + ".query_len", request.query_len, 1, kMaxQueryLen);
  check_range(field + ".context_len", request.context_len, 0, kMaxContextLen);

  const std::int64_t blocks = batch.num_blocks(request);
  const auto entries = static_cast<std::int64_t>(request.block_table.size());
  const bool may_lack_table = purpose == ValidateFor::kPlanning && entries == 0;
  if (entries < blocks && !may_lack_table) {
    throw FormatError(field + ".block_table", std::to_string(entries) + " entries",
                      "at least " + std::to_string(blocks) + " for context_len " +
                          std::to_string(request.context_len) + " in blocks of " +
                          std::to_string(batch.page_block_size));
  }
  for (std::int64_t b = 0; b < std::min(blocks, entries); ++b) {
    const std::int64_t page = request.block_table[b];
    if (page < 0 || page >= batch.num_pages) {
      throw FormatError(field + ".block_table[" + std::to_string(b) + "]", std::to_string(page),
                        "at least 0 and below num_pages, " + std::to_string(batch.num_pages));
    }
  }
  if (request.q.kind == TensorSource::Kind::kNone && purpose == ValidateFor::kDecoding) {
    throw FormatError(field + ".q", "no source", "safetensors, inline data or a generator");
  }
  check_inline_bytes(field + ".q", request.q,
                     request.query_len * batch.shape.h_q * batch.shape.d_qk, batch.dtype);
}

void validate(const Batch& batch, ValidateFor purpose) {
  validate_header(batch, purpose);
  for (std::size_t i = 0; i < batch.requests.size(); ++i) {
    validate_request(batch, static_cast<std::int64_t>(i), purpose);
  }
}

}  // namespace mla
