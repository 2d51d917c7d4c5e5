#include "tests/kernels/device_support.h"

#include <algorithm>

#include <gtest/gtest.h>

#include "kernels/reference/compare.h"

namespace mla::test {

using kernels::cuda::DeviceKernel;

namespace {

bool is_for_hopper(const DeviceKernel& kernel) {
  return kernel.name().starts_with("sm90");
}

std::string why_unsupported(const ProblemSpec& spec, const DeviceRun& run) {
  return run.kernel->why_unsupported(args_without_tensors(ProblemLayout(spec), run.exact));
}

bool is_supported(ProblemSpec spec, const DeviceRun& run) {
  spec.requests = {{1, 1}};
  return why_unsupported(spec, run).empty();
}

}  // namespace

std::vector<const DeviceKernel*> all_device_kernels() {
  std::vector<const DeviceKernel*> all;
  for (const auto& list : {kernels::cuda::sm90_kernels(), kernels::cuda::simt_kernels()}) {
    for (const kernels::cuda::KernelChoice& choice : list) all.push_back(choice.kernel);
  }
  return all;
}

std::string test_name(const DeviceKernel& kernel) {
  std::string name(kernel.name());
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
}

std::string why_not(const DeviceRun& run) {
  std::string reason;
  if (kernels::cuda::count_devices(&reason) == 0) return "needs a GPU: " + reason;
  if (is_for_hopper(*run.kernel) && kernels::cuda::compute_capability(0) != 90) {
    return "needs a Hopper GPU";
  }
  kernels::cuda::use_device(0);
  return why_unsupported({.requests = {{1, 64}}}, run);
}

ProblemSpec device_spec(const GridPoint& point, std::int64_t index, const DeviceRun& run) {
  ProblemSpec spec = problem_spec(point, index);
  // Tensor cores take weights of 16 bits, as FlashMLA's do, whose tolerances are stated for this.
  if (is_for_hopper(*run.kernel)) spec.kv_magnitude = 0.1;
  if (is_supported(spec, run)) return spec;
  spec.shape.d_qk = index % 2 == 0 ? 576 : 320;
  spec.shape.d_v = index % 2 == 0 ? 512 : 256;
  if (is_supported(spec, run)) return spec;
  spec.page_block_size = 64;
  spec.chunk_tokens = round_up(spec.chunk_tokens, 64);
  return spec;
}

void expect_within_tolerance(const DeviceRun& run, const Problem& problem,
                             const std::string& what) {
  const DeviceProblem on_device(problem);
  const Results results = on_device.run(run).results;
  const kernels::Comparison comparison = compare_results(results, run_oracle(problem));
  EXPECT_TRUE(comparison.pass) << run.kernel->name() << (run.exact ? ", exact, " : ", fast, ")
                               << what << ": " << kernels::to_string(comparison);
}

}  // namespace mla::test
