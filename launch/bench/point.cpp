#include "launch/bench/point.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include <fmt/format.h>

namespace mla::launch::bench {

std::int64_t Point::tokens() const {
  if (!varied()) return batch * context_len;
  return std::accumulate(context_lens.begin(), context_lens.end(), std::int64_t{0});
}

std::int64_t Point::blocks() const {
  if (!varied()) return batch * blocks_of(0);
  std::int64_t blocks = 0;
  for (std::int64_t r = 0; r < batch; ++r) blocks += blocks_of(r);
  return blocks;
}

std::int64_t Point::cache_bytes() const {
  return blocks() * page_block_size * shape.d_qk * size_of(dtype);
}

double Point::memory_bytes() const {
  const auto element = static_cast<double>(size_of(dtype));
  const double slots =
      varied() ? static_cast<double>(blocks() * page_block_size)
               : static_cast<double>(batch) * static_cast<double>(blocks_of(0) * page_block_size);
  const double query_rows =
      static_cast<double>(batch) * static_cast<double>(query_len) * static_cast<double>(heads);
  return element * (slots * static_cast<double>(shape.d_qk) +
                    query_rows * static_cast<double>(shape.d_qk + shape.d_v)) +
         weight_bytes();
}

double Point::kv_bytes() const {
  return static_cast<double>(tokens() * shape.d_qk * size_of(dtype));
}

double Point::weight_bytes() const {
  return static_cast<double>(heads * shape.d_v * (d_nope + d_v_head) * size_of(dtype));
}

double Point::flops() const {
  double visible = 0;  // keys, over the queries of all requests
  for (std::int64_t r = 0; r < (varied() ? batch : 1); ++r) {
    for (std::int64_t j = 0; j < query_len; ++j) {
      visible +=
          static_cast<double>(std::max<std::int64_t>(0, context_len_of(r) - (query_len - 1 - j)));
    }
  }
  if (!varied()) visible *= static_cast<double>(batch);
  const double attention = visible * static_cast<double>(shape.d_qk + shape.d_v);
  const double projections =
      static_cast<double>(batch * query_len * shape.d_v * (d_nope + d_v_head));
  return 2.0 * static_cast<double>(heads) * (attention + projections);
}

void set_lengths(Point& point, std::vector<std::int64_t> lengths) {
  point.batch = std::ssize(lengths);
  point.context_lens = std::move(lengths);
  point.context_len = ceil_div(point.tokens(), point.batch);
}

Batch make_batch(const Point& point) {
  Batch batch;
  batch.shape = {.h_q = point.heads, .h_kv = 1, .d_qk = point.shape.d_qk, .d_v = point.shape.d_v};
  batch.dtype = point.dtype;
  batch.out_dtype = point.dtype;
  batch.page_block_size = point.page_block_size;
  batch.chunk_tokens = point.chunk_tokens;
  batch.softmax_scale = 1 / std::sqrt(static_cast<double>(point.shape.d_qk));
  batch.requests.resize(point.batch);
  for (std::int64_t r = 0; r < point.batch; ++r) {
    batch.requests[r].query_len = point.query_len;
    batch.requests[r].context_len = point.context_len_of(r);
  }
  return batch;
}

std::string to_string(const Point& p) {
  const std::string projections =
      p.projected() ? fmt::format(", projected {}/{}", p.d_nope, p.d_v_head) : "";
  return fmt::format("{} {}/{}, {} heads, batch {} of {}{} tokens, s_q {}, {} thread(s){}",
                     name_of(p.dtype), p.shape.d_qk, p.shape.d_v, p.heads, p.batch,
                     p.varied() ? "~" : "", p.context_len, p.query_len, p.threads, projections);
}

}  // namespace mla::launch::bench
