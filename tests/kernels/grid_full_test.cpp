// Every point of FlashMLA's grid, dealt out to shards so that ctest can run them side by side.

#include <gtest/gtest.h>

#include "tests/kernels/grid.h"
#include "tests/support/runner.h"

namespace mla::test {
namespace {

constexpr std::size_t kShards = 96;

class FullGrid : public testing::TestWithParam<std::size_t> {};

TEST_P(FullGrid, IsWithinToleranceOnEveryBackend) {
  const std::vector<GridPoint> points = flashmla_grid();
  for (std::size_t i = GetParam(); i < points.size(); i += kShards) {
    check_grid_point(points[i], static_cast<std::int64_t>(i), usable_backends());
  }
}

INSTANTIATE_TEST_SUITE_P(Shard, FullGrid, testing::Range<std::size_t>(0, kShards));

}  // namespace
}  // namespace mla::test
