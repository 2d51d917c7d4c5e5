#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/batch.h"

namespace mla {

/// Tokens that one entry of `TraceEntry::hash_ids` stands for.
inline constexpr std::int64_t kTraceBlockTokens = 512;

/// One request of a recorded trace.
struct TraceEntry {
  std::int64_t timestamp_ms = 0;
  std::int64_t input_length = 0;
  std::int64_t output_length = 0;
  /// One per kTraceBlockTokens tokens of input, where the trace has them; equal ids at equal places
  /// are equal tokens after equal prefixes.
  std::vector<std::int64_t> hash_ids;

  friend bool operator==(const TraceEntry&, const TraceEntry&) = default;
};

/// How a batch is made from a trace.
struct TraceBatchOptions {
  std::int64_t requests = 32;  ///< entries taken
  std::int64_t first = 0;      ///< position of the first entry that may be taken
  bool sample = false;         ///< take entries at random (by `seed`), not the next ones
  MlaShape shape{.h_q = 128, .h_kv = 1, .d_qk = 576, .d_v = 512};
  DType dtype = DType::kBf16;
  DType out_dtype = DType::kBf16;
  std::int64_t page_block_size = 64;
  std::int64_t chunk_tokens = kDefaultChunkTokens;
  std::uint64_t seed = 0;     ///< of the sample, the page order and the tensors
  bool lengths_only = false;  ///< no block tables and no sources: for planning only
  std::int64_t query_len = 1;
};

/// Makes a batch whose requests ("trace-<position in the trace>") have the input lengths of trace
/// entries as context lengths. Requests share the pages of common prefixes: page p of two requests
/// is one page if both fill it and have equal hash ids for every block that it overlaps; so a page
/// that straddles blocks is shared only if all of them are equal, and a last, partly filled page
/// never is. Page numbers are dealt out in a random order, so that a request's pages lie apart as
/// in a cache that has long been in use. Tensors are generated.
/// @throws InvalidArgument if the trace has too few entries or an option is out of range.
Batch batch_from_trace(std::span<const TraceEntry> trace, const TraceBatchOptions& options);

}  // namespace mla
