#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/batch.h"
#include "launch/bench/sizes.h"

namespace mla::launch::bench {

/// One place of the grid that a benchmark visits: a batch of requests, alike but for their lengths.
struct Point {
  DType dtype = DType::kBf16;  ///< of queries, cache and results
  RowShape shape;
  std::int64_t heads = 0;
  std::int64_t batch = 0;        ///< requests
  std::int64_t context_len = 0;  ///< cached tokens of each; about their mean where they differ
  std::int64_t query_len = 1;    ///< new tokens of each
  int threads = 1;
  std::int64_t page_block_size = 64;
  std::int64_t chunk_tokens = kDefaultChunkTokens;
  std::int64_t d_nope = 0;    ///< with the projections around attention: what W_UK takes; else 0
  std::int64_t d_v_head = 0;  ///< likewise: what W_UV gives
  std::vector<std::int64_t> context_lens;  ///< [batch] where they differ, else empty

  bool varied() const { return !context_lens.empty(); }
  bool projected() const { return d_nope > 0; }
  std::int64_t d_rope() const { return shape.d_qk - shape.d_v; }
  std::int64_t rows() const { return query_len * heads; }  ///< query rows of a request
  std::int64_t context_len_of(std::int64_t request) const {
    return varied() ? context_lens[request] : context_len;
  }
  std::int64_t blocks_of(std::int64_t request) const {
    return ceil_div(context_len_of(request), page_block_size);
  }
  std::int64_t tokens() const;  ///< cached, of all requests
  std::int64_t blocks() const;  ///< of all requests

  /// Pages that one repeat reads, as bytes of pool: the last page of a request may be part empty.
  std::int64_t cache_bytes() const;
  /// That, the queries, the weights and the results, as a double because it may be beyond all
  /// integers.
  double memory_bytes() const;
  /// Cache rows read once for each request.
  double kv_bytes() const;
  /// W_UK and W_UV of all heads, read once; 0 without projections.
  double weight_bytes() const;
  /// 2 * rows * visible keys * (d_qk + d_v): multiplications and additions of the two products. The
  /// projections add 2 * rows * d_v * (d_nope + d_v_head).
  double flops() const;
};

/// Gives `point` requests of these lengths.
void set_lengths(Point& point, std::vector<std::int64_t> lengths);

/// The batch of a point, without block tables and sources: a batch for planning.
Batch make_batch(const Point& point);

/// "bf16 576/512, 128 heads, batch 8 of 4096 tokens, s_q 1, 2 threads".
std::string to_string(const Point& point);

}  // namespace mla::launch::bench
