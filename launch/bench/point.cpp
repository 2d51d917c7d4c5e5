#include "launch/bench/point.h"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>
#include <omp.h>

#include "core/error.h"

namespace mla::launch::bench {
namespace {

constexpr std::size_t kMaxPoints = 10'000;

/// The values of a list, each at most `most`.
std::vector<std::int64_t> bounded(std::string_view field, const std::string& text,
                                  std::int64_t most) {
  std::vector<std::int64_t> values = parse_sizes(field, text);
  for (const std::int64_t value : values) {
    if (value > most) {
      throw InvalidArgument(field, std::to_string(value), "at most " + std::to_string(most));
    }
  }
  return values;
}

std::int64_t parse_chunk(const std::string& text) {
  const std::int64_t chunk = parse_size("--chunk", text, 1 << 20);
  if (chunk % 64 != 0) throw InvalidArgument("--chunk", text, "a multiple of 64");
  return chunk;
}

std::int64_t parse_width(std::string_view field, const std::string& text) {
  const std::int64_t width = parse_size(field, text, 1 << 16);
  if (width % 16 != 0) throw InvalidArgument(field, text, "a multiple of 16");
  return width;
}

}  // namespace

std::int64_t Point::cache_bytes() const {
  return batch * blocks() * page_block_size * shape.d_qk * size_of(dtype);
}

double Point::memory_bytes() const {
  const auto element = static_cast<double>(size_of(dtype));
  const double slots = static_cast<double>(batch) * static_cast<double>(blocks()) *
                       static_cast<double>(page_block_size);
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
  double visible = 0;  // keys, over the queries of a request
  for (std::int64_t j = 0; j < query_len; ++j) {
    visible += static_cast<double>(std::max<std::int64_t>(0, context_len - (query_len - 1 - j)));
  }
  const double attention = visible * static_cast<double>(shape.d_qk + shape.d_v);
  const double projections = static_cast<double>(query_len * shape.d_v * (d_nope + d_v_head));
  return 2.0 * static_cast<double>(batch * heads) * (attention + projections);
}

std::vector<Point> make_points(const Grid& grid) {
  const auto shapes = parse_shapes("--shape", grid.shapes);
  const auto heads = bounded("--heads", grid.heads, 1 << 16);
  const auto query_lens = bounded("--s-q", grid.query_lens, 1 << 20);
  const auto batches = bounded("--batch", grid.batches, 1 << 20);
  const auto context_lens = bounded("--seqlen", grid.context_lens, std::int64_t{1} << 40);
  const auto threads = grid.threads.empty() ? std::vector<std::int64_t>{omp_get_max_threads()}
                                            : bounded("--threads", grid.threads, 4096);
  const std::int64_t page = parse_size("--page", grid.page, 1 << 20);
  const std::int64_t chunk = parse_chunk(grid.chunk);
  const std::int64_t d_nope = grid.projected ? parse_width("--nope", grid.d_nope) : 0;
  const std::int64_t d_v_head = grid.projected ? parse_width("--v-head", grid.d_v_head) : 0;
  std::vector<Point> points;
  const auto add = [&](const Point& point) {
    if (points.size() == kMaxPoints) {
      throw InvalidArgument("grid", "more than " + std::to_string(kMaxPoints) + " points",
                            "fewer: shorten the lists");
    }
    points.push_back(point);
  };
  for (const DType dtype : parse_dtypes("--dtype", grid.dtypes)) {
    for (const RowShape& shape : shapes) {
      for (const std::int64_t h : heads) {
        for (const std::int64_t s_q : query_lens) {
          for (const std::int64_t b : batches) {
            for (const std::int64_t s : context_lens) {
              for (const std::int64_t t : threads) {
                add({dtype, shape, h, b, s, s_q, static_cast<int>(t), page, chunk, d_nope,
                     d_v_head});
              }
            }
          }
        }
      }
    }
  }
  return points;
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
  for (Request& request : batch.requests) {
    request.query_len = point.query_len;
    request.context_len = point.context_len;
  }
  return batch;
}

std::string to_string(const Point& p) {
  const std::string projections =
      p.projected() ? fmt::format(", projected {}/{}", p.d_nope, p.d_v_head) : "";
  return fmt::format("{} {}/{}, {} heads, batch {} of {} tokens, s_q {}, {} thread(s){}",
                     name_of(p.dtype), p.shape.d_qk, p.shape.d_v, p.heads, p.batch, p.context_len,
                     p.query_len, p.threads, projections);
}

}  // namespace mla::launch::bench
