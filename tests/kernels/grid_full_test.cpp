#include <cstdio>
#include <cstdlib>

#include <gtest/gtest.h>

#include "tests/kernels/grid.h"
#include "tests/support/runner.h"

namespace mla::test {
namespace {

class FullGrid : public testing::TestWithParam<std::int64_t> {};

TEST_P(FullGrid, IsWithinToleranceOnEveryBackend) {
  if (std::getenv("MLA_FULL_GRID") == nullptr) GTEST_SKIP() << "set MLA_FULL_GRID=1 to run it";
  // The fp64 backend is as slow as the oracle and much like it; small batches show that it works.
  std::vector<const kernels::Backend*> backends = usable_backends();
  if (GetParam() > 2) {
    std::erase_if(backends, [](const auto* backend) { return backend->name() == "reference"; });
  }
  const std::vector<GridPoint> points = flashmla_grid();
  int checked = 0;
  for (std::size_t i = 0; i < points.size(); ++i) {
    if (points[i].b != GetParam()) continue;
    check_grid_point(points[i], static_cast<std::int64_t>(i), backends);
    if (++checked % 100 == 0) {
      std::printf("%d points\n", checked);
      std::fflush(stdout);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Batch, FullGrid, testing::Values(1, 2, 6, 64, 128),
                         [](const auto& test) { return std::to_string(test.param); });

}  // namespace
}  // namespace mla::test
