#include "launch/bench/point.h"

#include <gtest/gtest.h>

#include "core/error.h"

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
