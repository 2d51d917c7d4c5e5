#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/backend.h"
#include "tests/support/random_row.h"

namespace mla::test {

struct RequestSizes {
  std::int64_t query_len = 1;
  std::int64_t context_len = 0;

  friend bool operator==(const RequestSizes&, const RequestSizes&) = default;
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

  RandomRows random_rows() const { return {seed, dtype, q_magnitude, kv_magnitude}; }

  friend bool operator==(const ProblemSpec&, const ProblemSpec&) = default;
};

/// Which tokens a page of the cache holds. What lies in its slots past `tokens` is NaN.
struct PageTokens {
  std::int64_t first_token = 0;
  std::int32_t request = 0;
  std::int32_t tokens = 0;  ///< 0: the page is unused
};

/// Where everything of a problem lies, without the tensors' contents. Pages are shuffled and not
/// contiguous, and unused table entries hold 2147480000, which crashes whoever reads through it.
class ProblemLayout {
 public:
  explicit ProblemLayout(const ProblemSpec& spec);

  const ProblemSpec& spec() const { return spec_; }
  std::int64_t num_requests() const { return static_cast<std::int64_t>(spec_.requests.size()); }
  std::int64_t total_queries() const { return q_offsets_.back(); }
  std::int64_t q_offset(std::int64_t request) const { return q_offsets_[request]; }
  std::int64_t rows(std::int64_t request) const {
    return spec_.requests[request].query_len * spec_.shape.heads_per_kv();
  }
  float scale_log2() const;

  /// The cache, without data.
  const KvView& view() const { return view_; }
  std::int64_t q_row_stride() const { return spec_.shape.d_qk + spec_.q_padding; }
  /// What each page of the cache holds: [num_pages]. A page that requests share is the first one's.
  std::span<const PageTokens> pages() const { return pages_; }
  /// A request's block table, garbage included.
  std::span<const std::int32_t> block_table(std::int64_t request) const {
    return block_tables_[request];
  }

 private:
  ProblemSpec spec_;
  std::vector<std::int64_t> q_offsets_;
  std::vector<std::vector<std::int32_t>> block_tables_;
  std::vector<PageTokens> pages_;
  KvView view_;
};

/// A batch of random requests over one paged cache. The slots past a request's last token, whole
/// unused pages and paddings hold NaN.
class Problem : public ProblemLayout {
 public:
  explicit Problem(const ProblemSpec& spec);
  Problem(Problem&&) = default;

  /// The same queries and cache contents under another page size and other paddings.
  Problem relaid(std::int64_t page_block_size, std::int64_t token_padding,
                 std::int64_t q_padding) const;

  /// Rows `rows` of all the heads of one KV head. Points into this object.
  kernels::DecodeParams params(std::int64_t request, std::int64_t kv_head, Range rows) const;
  /// Likewise for some heads only, numbered within the KV head's group, and all rows of these.
  kernels::DecodeParams params_of_heads(std::int64_t request, std::int64_t kv_head,
                                        Range heads) const;

  /// All memory of the queries and of the pages, paddings included.
  std::span<const std::uint16_t> q() const { return q_; }
  std::span<const std::uint16_t> kv() const { return kv_; }

  std::uint16_t* mutable_q_row(std::int64_t request, std::int64_t query, std::int64_t head);
  std::uint16_t* mutable_kv_row(std::int64_t request, std::int64_t token, std::int64_t kv_head);

 private:
  void fill_cache();
  void fill_queries();
  /// Offset of a cache row in `kv_`.
  std::int64_t kv_row(std::int64_t request, std::int64_t token, std::int64_t kv_head) const;

  std::vector<std::uint16_t> q_;
  std::vector<std::uint16_t> kv_;
};

}  // namespace mla::test
