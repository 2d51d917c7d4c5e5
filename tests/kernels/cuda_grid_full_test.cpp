// Every point of FlashMLA's grid on every GPU kernel, dealt out to shards.

#include <gtest/gtest.h>

#include "tests/kernels/device_support.h"

namespace mla::test {
namespace {

constexpr std::size_t kShards = 96;

class GpuFullGrid : public testing::TestWithParam<std::size_t> {};

TEST_P(GpuFullGrid, IsWithinToleranceOnEveryKernel) {
  const std::vector<GridPoint> points = flashmla_grid();
  int kernels_run = 0;
  for (const kernels::cuda::DeviceKernel* kernel : all_device_kernels()) {
    for (const bool exact : {true, false}) {
      const DeviceRun run{kernel, exact};
      if (!why_not(run).empty()) continue;
      ++kernels_run;
      for (std::size_t i = GetParam(); i < points.size(); i += kShards) {
        const auto index = static_cast<std::int64_t>(i);
        expect_within_tolerance(run, Problem(device_spec(points[i], index, run)),
                                to_string(points[i]) + " (index " + std::to_string(i) + ")");
      }
    }
  }
  if (kernels_run == 0) GTEST_SKIP() << "needs a GPU that one of the kernels is for";
}

INSTANTIATE_TEST_SUITE_P(Shard, GpuFullGrid, testing::Range<std::size_t>(0, kShards));

}  // namespace
}  // namespace mla::test
