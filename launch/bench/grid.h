#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "launch/bench/point.h"

namespace mla::launch::bench {

/// What points to visit, as given on the command line.
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
  bool varlen = false;  ///< lengths drawn around `context_lens`
  /// Of one batch, instead of `batches` and `context_lens`; empty for none.
  std::vector<std::int64_t> lengths;
  /// Lines "batch s_q heads seqlen" instead of lists of each, where seqlen is a length, "~" and a
  /// mean to draw lengths around, or a length for each request: "128 2 128 ~4096", "2 1 16
  /// 100,900". What follows a '#' is ignored. Empty for none.
  std::string rows;
};

/// All points of the grid, those of one dtype together.
/// @throws InvalidArgument for a list that does not parse, a value out of its range, or too many
/// points.
std::vector<Point> make_points(const Grid& grid);

/// `count` lengths from a normal distribution with a standard deviation of half the mean, at least
/// 1: how FlashMLA's benchmark draws them. The same ones each time.
std::vector<std::int64_t> draw_lengths(std::int64_t count, std::int64_t mean);

}  // namespace mla::launch::bench
