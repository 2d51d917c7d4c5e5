#include "core/median.h"

#include <gtest/gtest.h>

namespace mla {
namespace {

TEST(Median, IsTheMiddleOne) {
  EXPECT_EQ(median<double>({}), 0);
  EXPECT_EQ(median<double>({7}), 7);
  EXPECT_EQ(median<double>({9, 1, 4}), 4);
  EXPECT_EQ(median<float>({5, 1, 4, 8, 2}), 4);
}

TEST(Median, IsTheMeanOfTheMiddleTwo) {
  EXPECT_EQ(median<double>({1, 2}), 1.5);
  EXPECT_EQ(median<double>({10, 1, 2, 4}), 3);
}

}  // namespace
}  // namespace mla
