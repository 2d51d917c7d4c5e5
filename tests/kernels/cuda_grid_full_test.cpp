// Every point of FlashMLA's grid on every GPU kernel, dealt out to shards. Tensors are made,
// decoded and compared with the fp64 oracle's results on the GPU.

#include <algorithm>
#include <exception>
#include <iostream>

#include <gtest/gtest.h>

#include "tests/kernels/device_support.h"
#include "tests/kernels/exact_on_device.h"

namespace mla::test {
namespace {

constexpr std::size_t kShards = 96;

/// Every kernel with every kind of plan that it knows.
std::vector<DeviceRun> possible_runs() {
  std::vector<DeviceRun> runs;
  for (const kernels::cuda::DeviceKernel* kernel : all_device_kernels()) {
    for (const bool exact : {true, false}) {
      if (const DeviceRun run{kernel, exact}; why_not(run).empty()) runs.push_back(run);
    }
  }
  return runs;
}

/// Runs that get the same problem.
struct Group {
  ProblemSpec spec;
  std::vector<DeviceRun> runs;
};

std::vector<Group> groups_of(const GridPoint& point, std::int64_t index,
                             const std::vector<DeviceRun>& runs) {
  std::vector<Group> groups;
  for (const DeviceRun& run : runs) {
    const ProblemSpec spec = device_spec(point, index, run);
    const auto same = [&](const Group& group) { return group.spec == spec; };
    auto group = std::find_if(groups.begin(), groups.end(), same);
    if (group == groups.end()) group = groups.insert(group, {spec, {}});
    group->runs.push_back(run);
  }
  return groups;
}

class GpuFullGrid : public testing::TestWithParam<std::size_t> {
 protected:
  void check(const GridPoint& point, std::int64_t index, const std::vector<DeviceRun>& runs) {
    std::string doing;
    const auto fail = [&](const std::string& error) {
      ++failed_;
      ADD_FAILURE() << doing << ", " << to_string(point) << " (index " << index << "): " << error;
    };
    try {
      for (const Group& group : groups_of(point, index, runs)) {
        doing = "the oracle";
        const ProblemLayout layout(group.spec);
        const DeviceProblem problem(layout, DeviceProblem::MakeThere{});
        const ExactOnDevice exact(problem);
        for (const DeviceRun& run : group.runs) {
          doing = std::string(run.kernel->name()) + (run.exact ? ", exact" : ", fast");
          ++runs_;
          problem.run_on_device(run);
          const kernels::Comparison comparison = exact.compare();
          if (!comparison.pass) fail(kernels::to_string(comparison));
        }
      }
    } catch (const std::exception& error) {
      fail(error.what());
    }
  }

  int runs_ = 0;
  int failed_ = 0;
};

TEST_P(GpuFullGrid, IsWithinToleranceOnEveryKernel) {
  const std::vector<DeviceRun> runs = possible_runs();
  if (runs.empty()) GTEST_SKIP() << "needs a GPU that one of the kernels is for";
  const std::vector<GridPoint> points = flashmla_grid();
  int checked = 0;
  for (std::size_t i = GetParam(); i < points.size(); i += kShards) {
    check(points[i], static_cast<std::int64_t>(i), runs);
    ++checked;
  }
  std::cout << "shard " << GetParam() << ": " << checked << " points, " << runs_ << " runs, "
            << failed_ << " failed" << std::endl;
}

INSTANTIATE_TEST_SUITE_P(Shard, GpuFullGrid, testing::Range<std::size_t>(0, kShards));

}  // namespace
}  // namespace mla::test
