#include "core/range.h"

#include <gtest/gtest.h>

namespace mla {
namespace {

TEST(Range, CountsWhatLiesInIt) {
  EXPECT_EQ((Range{3, 7}).size(), 4);
  EXPECT_FALSE((Range{3, 7}).empty());
  EXPECT_TRUE((Range{3, 3}).empty());
  EXPECT_TRUE((Range{4, 3}).empty());
  EXPECT_TRUE(Range{}.empty());
}

TEST(Range, DividesRoundingUp) {
  EXPECT_EQ(ceil_div(0, 64), 0);
  EXPECT_EQ(ceil_div(1, 64), 1);
  EXPECT_EQ(ceil_div(64, 64), 1);
  EXPECT_EQ(ceil_div(65, 64), 2);
  EXPECT_EQ(round_up(0, 16), 0);
  EXPECT_EQ(round_up(17, 16), 32);
}

TEST(Range, EvenPartsCoverEverythingInOrderAndDifferByOneAtMost) {
  for (std::int64_t size = 0; size < 40; ++size) {
    for (std::int64_t n = 1; n < 50; ++n) {
      std::int64_t end = 0;
      for (std::int64_t i = 0; i < n; ++i) {
        const Range part = even_part(size, n, i);
        EXPECT_EQ(part.begin, end);
        EXPECT_GE(part.size(), size / n);
        EXPECT_LE(part.size(), ceil_div(size, n));
        end = part.end;
      }
      EXPECT_EQ(end, size);
    }
  }
}

}  // namespace
}  // namespace mla
