#include "launch/bench/grid.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <random>
#include <sstream>
#include <string_view>
#include <utility>

#include <omp.h>

#include "core/error.h"

namespace mla::launch::bench {
namespace {

constexpr std::size_t kMaxPoints = 10'000;
constexpr std::int64_t kMaxHeads = 1 << 16;
constexpr std::int64_t kMaxQueryLen = 1 << 20;
constexpr std::int64_t kMaxBatch = 1 << 20;
constexpr std::int64_t kMaxContextLen = std::int64_t{1} << 40;
constexpr std::int64_t kMaxThreads = 4096;

void check_count(std::size_t points) {
  if (points < kMaxPoints) return;
  throw InvalidArgument("grid", "more than " + std::to_string(kMaxPoints) + " points",
                        "fewer: shorten the lists");
}

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

/// Lengths that are drawn around a mean, or given one by one.
void set_varied(Point& point, bool varlen, const std::vector<std::int64_t>& lengths) {
  if (varlen) {
    set_lengths(point, draw_lengths(point.batch, point.context_len));
  } else if (!lengths.empty()) {
    set_lengths(point, lengths);
  }
}

/// One line of Grid::rows, of which `row` knows the rest.
Point parse_row(const std::string& line, Point row) {
  constexpr std::string_view kExpected =
      "'batch s_q heads seqlen' such as '128 1 16 4k', '128 2 128 ~4k' or '2 1 16 100,900'";
  std::istringstream words(line);
  std::string batch, query_len, heads, seqlen, rest;
  if (!(words >> batch >> query_len >> heads >> seqlen) || words >> rest) {
    throw InvalidArgument("--rows", "'" + line + "'", kExpected);
  }
  row.batch = parse_size("--rows batch", batch, kMaxBatch);
  row.query_len = parse_size("--rows s_q", query_len, kMaxQueryLen);
  row.heads = parse_size("--rows heads", heads, kMaxHeads);
  const bool varlen = seqlen.starts_with('~');
  const auto lengths = bounded("--rows seqlen", varlen ? seqlen.substr(1) : seqlen, kMaxContextLen);
  if (lengths.size() > 1 && (varlen || std::ssize(lengths) != row.batch)) {
    throw InvalidArgument("--rows", "'" + line + "'", "one length, or one for each request");
  }
  row.context_len = lengths[0];
  set_varied(row, varlen, lengths.size() > 1 ? lengths : std::vector<std::int64_t>{});
  return row;
}

std::vector<Point> parse_rows(const std::string& text, const std::vector<Point>& settings) {
  std::vector<Point> points;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    line.resize(std::min(line.size(), line.find('#')));
    if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
    for (const Point& setting : settings) points.push_back(parse_row(line, setting));
  }
  if (points.empty()) throw InvalidArgument("--rows", "no lines", "at least one");
  return points;
}

/// Threads, page size and so on: what all points have in common, once for each number of threads.
std::vector<Point> common_settings(const Grid& grid) {
  Point point;
  point.page_block_size = parse_size("--page", grid.page, 1 << 20);
  point.chunk_tokens = parse_chunk(grid.chunk);
  point.d_nope = grid.projected ? parse_width("--nope", grid.d_nope) : 0;
  point.d_v_head = grid.projected ? parse_width("--v-head", grid.d_v_head) : 0;
  std::vector<Point> settings;
  for (const std::int64_t threads : grid.threads.empty()
                                        ? std::vector<std::int64_t>{omp_get_max_threads()}
                                        : bounded("--threads", grid.threads, kMaxThreads)) {
    point.threads = static_cast<int>(threads);
    settings.push_back(point);
  }
  return settings;
}

/// All points but for their dtype and shape.
std::vector<Point> make_forms(const Grid& grid) {
  const std::vector<Point> settings = common_settings(grid);
  if (!grid.rows.empty()) return parse_rows(grid.rows, settings);
  const bool listed = !grid.lengths.empty();
  const auto batches = bounded("--batch", listed ? "1" : grid.batches, kMaxBatch);
  const auto context_lens = bounded("--seqlen", listed ? "1" : grid.context_lens, kMaxContextLen);
  const auto query_lens = bounded("--s-q", grid.query_lens, kMaxQueryLen);
  std::vector<Point> forms;
  for (const std::int64_t heads : bounded("--heads", grid.heads, kMaxHeads)) {
    for (const std::int64_t query_len : query_lens) {
      for (const std::int64_t batch : batches) {
        for (const std::int64_t context_len : context_lens) {
          for (Point form : settings) {
            check_count(forms.size());
            form.heads = heads;
            form.query_len = query_len;
            form.batch = batch;
            form.context_len = context_len;
            set_varied(form, grid.varlen, grid.lengths);
            forms.push_back(std::move(form));
          }
        }
      }
    }
  }
  return forms;
}

}  // namespace

std::vector<std::int64_t> draw_lengths(std::int64_t count, std::int64_t mean) {
  // Box and Muller's transform: the standard library's may differ from one to the next.
  std::mt19937_64 random(1);
  const auto uniform = [&] { return (static_cast<double>(random() >> 11) + 0.5) * 0x1p-53; };
  std::vector<std::int64_t> lengths(count);
  for (std::int64_t& length : lengths) {
    const double radius = std::sqrt(-2 * std::log(uniform()));
    const double normal = radius * std::cos(2 * std::numbers::pi * uniform());
    const auto middle = static_cast<double>(mean);
    length = std::max<std::int64_t>(1, std::llround(middle + middle / 2 * normal));
  }
  return lengths;
}

std::vector<Point> make_points(const Grid& grid) {
  const std::vector<Point> forms = make_forms(grid);
  std::vector<Point> points;
  for (const DType dtype : parse_dtypes("--dtype", grid.dtypes)) {
    for (const RowShape& shape : parse_shapes("--shape", grid.shapes)) {
      for (Point point : forms) {
        check_count(points.size());
        point.dtype = dtype;
        point.shape = shape;
        points.push_back(std::move(point));
      }
    }
  }
  return points;
}

}  // namespace mla::launch::bench
