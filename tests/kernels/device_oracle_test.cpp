// What the whole grid is measured by on a GPU, against what the CPU makes of the same.

#include <cmath>
#include <cstring>
#include <limits>

#include <gtest/gtest.h>

#include "kernels/reference/compare.h"
#include "tests/kernels/device_compare.h"
#include "tests/kernels/device_support.h"
#include "tests/kernels/exact_on_device.h"

namespace mla::test {
namespace {

using kernels::cuda::DeviceBuffer;
using kernels::cuda::Stream;

class OnAGpu : public testing::Test {
 protected:
  void SetUp() override {
    std::string reason;
    if (kernels::cuda::count_devices(&reason) == 0) GTEST_SKIP() << "needs a GPU: " << reason;
    kernels::cuda::use_device(0);
  }
};

/// All that the grid varies: types, rows, heads, pages, ragged and empty requests, shared pages,
/// rows that see no key; and paddings.
std::vector<ProblemSpec> specs_of_all_kinds() {
  std::vector<ProblemSpec> specs;
  const std::vector<GridPoint> points = flashmla_grid();
  constexpr double kSmallEnough = 2e8;
  for (std::size_t i = 0; i < points.size(); i += 131) {
    const ProblemSpec spec = problem_spec(points[i], static_cast<std::int64_t>(i));
    if (flops_of(spec) < kSmallEnough) specs.push_back(spec);
  }
  specs.push_back({.shape = {70, 1, 576, 512}, .requests = {{4, 2}, {1, 0}, {3, 600}, {2, 1}}});
  specs.push_back({.shape = {6, 2, 80, 64},
                   .dtype = DType::kFp16,
                   .page_block_size = 16,
                   .causal = false,
                   .requests = {{3, 1}, {2, 333}, {1, 500}},
                   .token_padding = 8,
                   .q_padding = 16,
                   .max_cache_elements = 5000});
  return specs;
}

class GpuOracle : public OnAGpu {};

TEST_F(GpuOracle, AgreesWithTheCpus) {
  const auto near = [](double x, double y) {
    return x == y || std::fabs(x - y) < 1e-13 * (1 + std::fabs(y));
  };
  for (const ProblemSpec& spec : specs_of_all_kinds()) {
    const Problem problem(spec);
    const DeviceProblem on_device(problem);
    const ExactResults exact = run_oracle(problem);
    const ExactResults there = ExactOnDevice(on_device).download();
    EXPECT_TRUE(std::equal(there.out.begin(), there.out.end(), exact.out.begin(), near));
    EXPECT_TRUE(std::equal(there.lse.begin(), there.lse.end(), exact.lse.begin(), near));
  }
}

class GpuProblem : public OnAGpu {};

TEST_F(GpuProblem, IsTheSameWhenItIsMadeThere) {
  const auto same = [](std::span<const std::uint16_t> here, const void* there,
                       const Stream& stream) {
    const auto copy = download<std::uint16_t>(stream, there, std::ssize(here));
    return std::equal(here.begin(), here.end(), copy.begin());
  };
  for (const ProblemSpec& spec : specs_of_all_kinds()) {
    const Problem problem(spec);
    const DeviceProblem made(problem, DeviceProblem::MakeThere{});
    EXPECT_TRUE(same(problem.q(), made.args(true).q, made.stream()));
    EXPECT_TRUE(same(problem.kv(), made.args(true).kv, made.stream()));
  }
}

class GpuComparison : public OnAGpu {
 protected:
  /// Both comparisons of the same numbers; they must agree.
  static void check(const Results& results, const ExactResults& exact) {
    const Stream stream;
    const auto upload = [&](const auto& numbers) {
      DeviceBuffer buffer(static_cast<std::int64_t>(numbers.size() * sizeof numbers[0]), "numbers");
      stream.upload(buffer.data(), numbers.data(), buffer.bytes());
      return buffer;
    };
    const DeviceBuffer out = upload(results.out);
    const DeviceBuffer lse = upload(results.lse);
    const DeviceBuffer exact_out = upload(exact.out);
    const DeviceBuffer exact_lse = upload(exact.lse);
    const kernels::Comparison there = compare_on_device(
        {out.as<float>(), exact_out.as<double>(), std::ssize(results.out)},
        {lse.as<float>(), exact_lse.as<double>(), std::ssize(results.lse)}, stream);
    const kernels::Comparison here = compare_results(results, exact);
    EXPECT_EQ(there.pass, here.pass);
    EXPECT_EQ(there.max_abs, here.max_abs);
    EXPECT_EQ(there.max_rel, here.max_rel);
    EXPECT_NEAR(there.cosine_difference, here.cosine_difference, 1e-12);
    EXPECT_EQ(there.max_lse_abs, here.max_lse_abs);
    EXPECT_EQ(there.mismatches, here.mismatches);
    EXPECT_EQ(there.first_mismatch, here.first_mismatch);
  }
};

TEST_F(GpuComparison, FindsWhatTheCpuFinds) {
  constexpr float kNoNumber = std::numeric_limits<float>::quiet_NaN();
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  const std::size_t rows = 3000;
  ExactResults exact{std::vector<double>(rows * 64), std::vector<double>(rows)};
  for (std::size_t i = 0; i < exact.out.size(); ++i) exact.out[i] = std::sin(double(i));
  for (std::size_t i = 0; i < rows; ++i) exact.lse[i] = 1 + std::cos(double(i));
  exact.lse[17] = double{kInfinity};
  exact.out[99] = double{kNoNumber};
  const Results right{{exact.out.begin(), exact.out.end()}, {exact.lse.begin(), exact.lse.end()}};
  check(right, exact);
  for (const float wrong : {kNoNumber, kInfinity, -kInfinity, 0.9F, 1e-3F}) {
    for (const std::size_t at : {std::size_t{99}, std::size_t{100}, exact.out.size() - 1}) {
      Results results = right;
      results.out[at] = wrong;
      check(results, exact);
    }
    for (const std::size_t at : {std::size_t{0}, std::size_t{17}, rows - 1}) {
      Results results = right;
      results.lse[at] = wrong;
      check(results, exact);
    }
  }
  Results skewed = right;  // within every element's tolerance, not within the cosine's
  for (float& x : skewed.out) x *= x > 0 ? 1.015F : 0.985F;
  check(skewed, exact);
}

}  // namespace
}  // namespace mla::test
