#pragma once

#include <string>
#include <vector>

#include "tests/kernels/device_problem.h"
#include "tests/kernels/grid.h"

namespace mla::test {

/// The kernels of all GPU backends of this build.
std::vector<const kernels::cuda::DeviceKernel*> all_device_kernels();

/// The kernel's name as a part of a test's name.
std::string test_name(const kernels::cuda::DeviceKernel& kernel);

/// Why `run` cannot be tested here: no GPU of the right kind, or a kind of plan that the kernel
/// does not know. Else makes the first GPU the current one, and is empty.
std::string why_not(const DeviceRun& run);

/// The problem of a point of the grid, changed as little as it takes for the kernel to support it.
ProblemSpec device_spec(const GridPoint& point, std::int64_t index, const DeviceRun& run);

/// Runs the problem and adds a test failure if it is not within tolerance.
void expect_within_tolerance(const DeviceRun& run, const Problem& problem, const std::string& what);

}  // namespace mla::test
