#include "tests/kernels/grid.h"

#include <gtest/gtest.h>

#include "tests/support/runner.h"

namespace mla::test {
namespace {

// Every 61st point, which steps through all values of every dimension, if it is small enough.
TEST(FlashMlaGrid, SampledPointsAreWithinToleranceOnEveryBackend) {
  constexpr double kSmallEnough = 2e8;
  const std::vector<GridPoint> points = flashmla_grid();
  int checked = 0;
  for (std::size_t i = 0; i < points.size(); i += 61) {
    const auto index = static_cast<std::int64_t>(i);
    if (flops_of(problem_spec(points[i], index)) > kSmallEnough) continue;
    check_grid_point(points[i], index, usable_backends());
    ++checked;
  }
  EXPECT_GT(checked, 40);
}

TEST(FlashMlaGrid, LongContextsAreWithinTolerance) {
  std::int64_t index = 0;
  for (const bool causal : {false, true}) {
    for (const std::int64_t h_q : {1, 16}) {
      check_grid_point({1, 2, 4096, h_q, 1, false, causal, false}, index, usable_backends());
      index += 9;
    }
  }
}

}  // namespace
}  // namespace mla::test
