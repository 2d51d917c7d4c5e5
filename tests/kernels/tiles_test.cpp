#include "kernels/cpu/tiles.h"

#include <vector>

#include <gtest/gtest.h>

namespace mla::kernels::cpu {
namespace {

TEST(Deal, CutsIntoTheFewestNearlyEqualRuns) {
  for (std::int64_t count = 0; count <= 130; ++count) {
    for (std::int64_t most = 1; most <= 16; ++most) {
      std::vector<std::int64_t> sizes;
      std::int64_t next = 0;
      deal(count, most, [&](std::int64_t begin, std::int64_t size) {
        EXPECT_EQ(begin, next);
        next += size;
        sizes.push_back(size);
      });
      EXPECT_EQ(next, count);
      ASSERT_EQ(static_cast<std::int64_t>(sizes.size()), ceil_div(count, most));
      for (const std::int64_t size : sizes) {
        EXPECT_LE(size, most);
        EXPECT_LE(sizes.front() - size, 1);
      }
    }
  }
}

TEST(WithConstant, CallsTheOneAskedFor) {
  for (int n = 1; n <= 5; ++n) {
    with_constant<5>(n, [&]<int kN>() { EXPECT_EQ(kN, n); });
  }
}

}  // namespace
}  // namespace mla::kernels::cpu
