#include <cmath>

#include <gtest/gtest.h>

#include "core/error.h"
#include "launch/bench/grid.h"

namespace mla::launch::bench {
namespace {

Grid small_grid() {
  return {.heads = "16,128",
          .context_lens = "512..2k*2",
          .batches = "1,8",
          .query_lens = "1,2",
          .shapes = "576/512,320/256",
          .dtypes = "bf16,fp16",
          .threads = "1,2"};
}

TEST(Points, AreEveryCombination) {
  EXPECT_EQ(make_points(small_grid()).size(), 2U * 3 * 2 * 2 * 2 * 2 * 2);
}

TEST(Points, KeepEachDtypeTogether) {
  int changes = 0;
  const auto points = make_points(small_grid());
  for (std::size_t i = 1; i < points.size(); ++i) {
    changes += points[i].dtype != points[i - 1].dtype ? 1 : 0;
  }
  EXPECT_EQ(changes, 1);
}

TEST(Points, CountWhatQueriesSee) {
  Point point = make_points({.heads = "16", .context_lens = "100", .batches = "3"})[0];
  EXPECT_EQ(point.flops(), 2.0 * 3 * 16 * 100 * (576 + 512));
  EXPECT_EQ(point.kv_bytes(), 3 * 100 * 576 * 2);
  EXPECT_EQ(point.cache_bytes(), 3 * 128 * 576 * 2);  // pages of 64
  point.query_len = 3;                                // see 98, 99 and 100 keys
  EXPECT_EQ(point.flops(), 2.0 * 3 * 16 * (98 + 99 + 100) * (576 + 512));
  EXPECT_EQ(point.kv_bytes(), 3 * 100 * 576 * 2);
  point.context_len = 1;
  EXPECT_EQ(point.flops(), 2.0 * 3 * 16 * (576 + 512));
}

TEST(Points, CountTheProjectionsIfThereAreAny) {
  Grid grid{.heads = "16", .context_lens = "100", .batches = "3", .query_lens = "2"};
  grid.d_v_head = "64";
  const Point without = make_points(grid)[0];
  EXPECT_FALSE(without.projected());
  EXPECT_EQ(without.weight_bytes(), 0);
  grid.projected = true;
  const Point with = make_points(grid)[0];
  EXPECT_TRUE(with.projected());
  EXPECT_EQ(with.flops() - without.flops(), 2.0 * 3 * 2 * 16 * 512 * (128 + 64));
  EXPECT_EQ(with.weight_bytes(), 16.0 * 512 * (128 + 64) * 2);
  EXPECT_EQ(with.kv_bytes(), without.kv_bytes());
  EXPECT_EQ(to_string(with), to_string(without) + ", projected 128/64");
}

TEST(Points, MayHaveRequestsOfGivenLengths) {
  Grid grid{.heads = "16", .context_lens = "7", .batches = "9", .query_lens = "2"};
  grid.lengths = {100, 1, 64};
  const std::vector<Point> points = make_points(grid);
  ASSERT_EQ(points.size(), 1U);
  const Point& point = points[0];
  EXPECT_EQ(point.batch, 3);
  EXPECT_EQ(point.context_len, 55);
  EXPECT_EQ(point.tokens(), 165);
  EXPECT_EQ(point.blocks(), 2 + 1 + 1);
  EXPECT_EQ(point.kv_bytes(), 165 * 576 * 2);
  EXPECT_EQ(point.cache_bytes(), 4 * 64 * 576 * 2);
  EXPECT_EQ(point.flops(), 2.0 * 16 * (99 + 100 + 0 + 1 + 63 + 64) * (576 + 512));
  EXPECT_EQ(make_batch(point).requests[2].context_len, 64);
}

TEST(Points, DrawLengthsAroundAMean) {
  const auto lengths = draw_lengths(4000, 1000);
  EXPECT_EQ(lengths, draw_lengths(4000, 1000));
  double sum = 0;
  double squares = 0;
  for (const std::int64_t length : lengths) {
    EXPECT_GE(length, 1);
    sum += static_cast<double>(length);
    squares += static_cast<double>((length - 1000) * (length - 1000));
  }
  EXPECT_NEAR(sum / 4000, 1000, 30);
  EXPECT_NEAR(std::sqrt(squares / 4000), 490, 30);
  const Point point =
      make_points({.heads = "1", .context_lens = "1000", .batches = "50", .varlen = true})[0];
  EXPECT_EQ(point.context_lens, draw_lengths(50, 1000));
}

TEST(Points, ComeFromAListOfRows) {
  Grid grid{.dtypes = "bf16,fp16", .threads = "1"};
  grid.rows = "# b s_q h s\n128 2 16 4k\n\n 4 1 128 ~1000  # drawn\n2 1 8 5,70\n";
  const std::vector<Point> points = make_points(grid);
  ASSERT_EQ(points.size(), 6U);
  EXPECT_EQ(to_string(points[0]),
            "bf16 576/512, 16 heads, batch 128 of 4096 tokens, s_q 2, 1 thread(s)");
  EXPECT_EQ(points[1].context_lens, draw_lengths(4, 1000));
  EXPECT_EQ(points[2].context_lens, (std::vector<std::int64_t>{5, 70}));
  EXPECT_EQ(points[3].dtype, DType::kFp16);
  for (const char* wrong :
       {"1 1 16", "1 1 16 4k 5", "3 1 16 5,70", "2 1 16 ~5,70", "0 1 16 4k", "#"}) {
    grid.rows = wrong;
    EXPECT_THROW(make_points(grid), InvalidArgument) << wrong;
  }
}

TEST(Points, RefuseValuesOutOfRange) {
  for (const Grid& grid :
       {Grid{.projected = true, .d_nope = "100"}, Grid{.projected = true, .d_v_head = "1m"},
        Grid{.heads = "1m"}, Grid{.chunk = "100"}, Grid{.page = "0"}, Grid{.threads = "5k"},
        Grid{.context_lens = "1..3000+1", .batches = "1..3000+1"}}) {
    EXPECT_THROW(make_points(grid), InvalidArgument);
  }
}

}  // namespace
}  // namespace mla::launch::bench
