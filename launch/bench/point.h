#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/batch.h"
#include "launch/bench/sizes.h"

namespace mla::launch::bench {

/// One place of the grid that a benchmark visits: a batch of equal requests.
struct Point {
  DType dtype = DType::kBf16;  ///< of queries, cache and results
  RowShape shape;
  std::int64_t heads = 0;
  std::int64_t batch = 0;        ///< requests
  std::int64_t context_len = 0;  ///< cached tokens of each
  std::int64_t query_len = 1;    ///< new tokens of each
  int threads = 1;
  std::int64_t page_block_size = 64;
  std::int64_t chunk_tokens = kDefaultChunkTokens;
  std::int64_t d_nope = 0;    ///< with the projections around attention: what W_UK takes; else 0
  std::int64_t d_v_head = 0;  ///< likewise: what W_UV gives

  bool projected() const { return d_nope > 0; }
  std::int64_t d_rope() const { return shape.d_qk - shape.d_v; }
  std::int64_t rows() const { return query_len * heads; }  ///< query rows of a request
  std::int64_t tokens() const { return batch * context_len; }
  std::int64_t blocks() const { return ceil_div(context_len, page_block_size); }

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

/// What grid to visit, as given on the command line.
struct Grid {
  std::string heads = "16,128";
  std::string context_lens = "512..32k*8";
  std::string batches = "1..64*8";
  std::string query_lens = "1";
  std::string shapes = "576/512";
  std::string dtypes = "bf16";
  std::string threads;  ///< empty: one per core
  std::string page = "64";
  std::string chunk = "512";
  bool projected = false;  ///< with the projections around attention
  std::string d_nope = "128";
  std::string d_v_head = "128";
};

/// All points of the grid, those of one dtype together.
/// @throws InvalidArgument for a list that does not parse, a value out of its range, or too many
/// points.
std::vector<Point> make_points(const Grid& grid);

/// The batch of a point, without block tables and sources: a batch for planning.
Batch make_batch(const Point& point);

/// "bf16 576/512, 128 heads, batch 8 of 4096 tokens, s_q 1, 2 threads".
std::string to_string(const Point& point);

}  // namespace mla::launch::bench
