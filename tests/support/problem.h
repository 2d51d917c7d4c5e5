#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/backend.h"

namespace mla::test {

struct RequestSizes {
  std::int64_t query_len = 1;
  std::int64_t context_len = 0;
};

/// Everything that decides a random problem.
struct ProblemSpec {
  MlaShape shape{16, 1, 576, 512};
  DType dtype = DType::kBf16;
  std::int64_t page_block_size = 64;
  std::int64_t chunk_tokens = kDefaultChunkTokens;
  bool causal = true;
  std::vector<RequestSizes> requests;
  std::uint64_t seed = 1;
  double q_magnitude = 1;          ///< standard deviation of the elements
  double kv_magnitude = 0.1;       ///< FlashMLA's
  std::int64_t token_padding = 0;  ///< NaN elements after each token of the cache
  std::int64_t q_padding = 0;      ///< NaN elements after each query row
  std::int64_t max_cache_elements = std::int64_t{1} << 23;  ///< beyond it requests share full pages
};

/// A batch of random requests over one paged cache. Pages are shuffled and not contiguous, the
/// slots past a request's last token and whole unused pages hold NaN, and unused table entries hold
/// 2147480000, which crashes whoever reads through it.
class Problem {
 public:
  explicit Problem(const ProblemSpec& spec);
  Problem(Problem&&) = default;

  /// The same queries and cache contents under another page size and other paddings.
  Problem relaid(std::int64_t page_block_size, std::int64_t token_padding,
                 std::int64_t q_padding) const;

  const ProblemSpec& spec() const { return spec_; }
  std::int64_t num_requests() const { return static_cast<std::int64_t>(spec_.requests.size()); }
  std::int64_t total_queries() const { return q_offsets_.back(); }
  std::int64_t q_offset(std::int64_t request) const { return q_offsets_[request]; }
  std::int64_t rows(std::int64_t request) const {
    return spec_.requests[request].query_len * spec_.shape.heads_per_kv();
  }

  /// Rows `rows` of all the heads of one KV head. Points into this object.
  kernels::DecodeParams params(std::int64_t request, std::int64_t kv_head, Range rows) const;
  /// Likewise for some heads only, numbered within the KV head's group, and all rows of these.
  kernels::DecodeParams params_of_heads(std::int64_t request, std::int64_t kv_head,
                                        Range heads) const;

  /// All memory of the queries, of the pages, and the block table of a request, garbage included.
  std::span<const std::uint16_t> q() const { return q_; }
  std::span<const std::uint16_t> kv() const { return kv_; }
  std::span<const std::int32_t> block_table(std::int64_t request) const {
    return block_tables_[request];
  }

  std::uint16_t* mutable_q_row(std::int64_t request, std::int64_t query, std::int64_t head);
  std::uint16_t* mutable_kv_row(std::int64_t request, std::int64_t token, std::int64_t kv_head);

 private:
  void lay_out_pages();
  void fill();
  std::int64_t q_row_stride() const { return spec_.shape.d_qk + spec_.q_padding; }

  ProblemSpec spec_;
  std::vector<std::int64_t> q_offsets_;
  std::vector<std::vector<std::int32_t>> block_tables_;
  std::vector<std::uint16_t> q_;
  std::vector<std::uint16_t> kv_;
  KvView view_;
};

/// A finite number as a bit pattern of `dtype`.
std::uint16_t to_bits(DType dtype, double value);

}  // namespace mla::test
