// The bounds of docs/numerics.md for every backend that this machine can run, on short problems.

#include <cmath>
#include <cstdint>
#include <string>
#include <tuple>
#include <vector>

#include <gtest/gtest.h>

#include "core/chunk_tree.h"
#include "kernels/reference/oracle.h"
#include "tests/numerics/errors.h"
#include "tests/numerics/inputs.h"
#include "tests/support/runner.h"

namespace mla::test {
namespace {

constexpr MlaShape kShape{4, 1, 80, 64};
constexpr std::int64_t kShort = 1024;
constexpr std::int64_t kMiddle = 8192;
constexpr std::int64_t kLong = 65536;
constexpr double kUnit = 0x1p-24;  // fp32's unit roundoff

/// The most that rounding a weight to 16 bits changes of it.
double weight_rounding(DType dtype) {
  return dtype == DType::kBf16 ? 0x1p-8 : 0x1p-11;
}

/// Relative error of l, and of each output but for the rounded weights: n terms summed in chunks,
/// along the tree, each term with the error of its score. The score's own sum errs at random: 4
/// standard deviations instead of the worst case (Higham and Mary 2019).
double sum_error(const kernels::DecodeParams& params, double score_bound) {
  const auto d_qk = static_cast<double>(params.shape.d_qk);
  const double score = 4 * (std::sqrt(d_qk) + 1) * kUnit * score_bound;
  const double exp2 = 8 * kUnit;
  const auto additions =
      static_cast<double>(params.chunk_tokens + 32 + 4 * root_level(params.num_chunks()));
  return score + exp2 + additions * kUnit;
}

/// Elements of out and lse that are further from fp64 than the law allows.
std::int64_t count_beyond_law(const kernels::DecodeParams& params, const FloatAttention& result,
                              const ExactAttention& exact) {
  std::int64_t beyond = 0;
  for (std::size_t row = 0; row < exact.lse.size(); ++row) {
    const double sums = sum_error(params, exact.score_bound[row]);
    const double lse_error = std::fabs(static_cast<double>(result.lse[row]) - exact.lse[row]);
    beyond += lse_error <= sums + 2 * kUnit * std::fabs(exact.lse[row]) ? 0 : 1;
    const double of_weight = weight_rounding(params.kv.dtype) + 2 * sums;
    for (std::int64_t d = 0; d < params.shape.d_v; ++d) {
      const std::size_t i = row * params.shape.d_v + d;
      const double error = std::fabs(static_cast<double>(result.out[i]) - exact.out[i]);
      beyond += error <= of_weight * exact.abs_out[i] ? 0 : 1;
    }
  }
  return beyond;
}

ResultErrors errors_at(const kernels::HostBackend& backend, const InputKind& kind, DType dtype,
                       std::int64_t context_len) {
  const Input input(kind, kShape, dtype, context_len, 1);
  const kernels::DecodeParams params = input.params();
  return errors_of(run_backend(backend, params), exact_attention(params), dtype);
}

using Case = std::tuple<const kernels::HostBackend*, DType>;

class ErrorGrowth : public testing::TestWithParam<Case> {
 protected:
  const kernels::HostBackend& backend() const { return *std::get<0>(GetParam()); }
  DType dtype() const { return std::get<1>(GetParam()); }
};

TEST_P(ErrorGrowth, EveryElementKeepsToTheLaw) {
  for (const InputKind& kind : input_kinds()) {
    for (const std::int64_t context_len : {kShort, kLong}) {
      SCOPED_TRACE(std::string(kind.name) + ", " + std::to_string(context_len) + " keys");
      const Input input(kind, kShape, dtype(), context_len, 1);
      const kernels::DecodeParams params = input.params();
      const ExactAttention exact = exact_attention(params);
      const FloatAttention result = run_backend(backend(), params);
      EXPECT_EQ(count_beyond_law(params, result, exact), 0);
      EXPECT_TRUE(errors_of(result, exact, dtype()).pass) << "FlashMLA's tolerances";
    }
  }
}

/// Inputs whose weights are spread in the same way whatever the length. In fp32 alone a drift
/// spreads them over somewhat more of each chunk as it gets slower, hence the 1e-6; one running sum
/// would be at 7e-6 and more.
TEST_P(ErrorGrowth, SixtyFourTimesTheKeysMakeNoLargerError) {
  for (const char* name : {"random", "drift_up", "drift_down", "wander", "high", "low", "levels"}) {
    const InputKind& kind = find_input_kind(name);
    const ResultErrors few = errors_at(backend(), kind, dtype(), kShort);
    const ResultErrors many = errors_at(backend(), kind, dtype(), kLong);
    EXPECT_LE(many.rms, 2 * few.rms + 1e-6) << name;
  }
}

/// FlashAttention's rule: at most twice the error of a straightforward implementation.
TEST_P(ErrorGrowth, StaysWithinTwiceAStraightforwardImplementation) {
  for (const InputKind& kind : input_kinds()) {
    const Input input(kind, kShape, dtype(), kMiddle, 1);
    const kernels::DecodeParams params = input.params();
    const ExactAttention exact = exact_attention(params);
    const FloatAttention plain = plain_attention(params, PlainPrecision::kCache);
    EXPECT_LE(errors_of(run_backend(backend(), params), exact, dtype()).rms_rounded,
              2 * errors_of(plain, exact, dtype()).rms_rounded)
        << kind.name;
  }
}

INSTANTIATE_TEST_SUITE_P(Backends, ErrorGrowth,
                         testing::Combine(testing::ValuesIn(usable_backends()),
                                          testing::Values(DType::kBf16, DType::kFp16)),
                         [](const auto& test) {
                           return test_name(*std::get<0>(test.param)) + "_" +
                                  std::string(name_of(std::get<1>(test.param)));
                         });

/// What the chunks and the tree are for, and that the tests above would see it if they broke.
TEST(OneRunningSum, GrowsWithTheLengthAndBreaksTheLaw) {
  double rms[2];
  std::int64_t beyond = 0;
  for (const int i : {0, 1}) {
    const Input input(find_input_kind("levels"), kShape, DType::kBf16, i == 0 ? kShort : kLong, 1);
    const kernels::DecodeParams params = input.params();
    const ExactAttention exact = exact_attention(params);
    const FloatAttention plain = plain_attention(params, PlainPrecision::kFp32);
    rms[i] = errors_of(plain, exact, DType::kBf16).rms;
    beyond = count_beyond_law(params, plain, exact);
  }
  EXPECT_GT(rms[1], 20 * rms[0]);
  EXPECT_GT(beyond, 0);
}

TEST(ExactAttention, AgreesWithTheOracle) {
  for (const InputKind& kind : input_kinds()) {
    const Input input(kind, kShape, DType::kBf16, 10000, 1);
    const kernels::DecodeParams params = input.params();
    const ExactAttention exact = exact_attention(params);
    std::vector<double> out(exact.out.size());
    std::vector<double> lse(exact.lse.size());
    kernels::oracle(params, out.data(), lse.data());
    for (std::size_t i = 0; i < out.size(); ++i) {
      ASSERT_NEAR(exact.out[i], out[i], 1e-10 * exact.abs_out[i]) << kind.name;
    }
    for (std::size_t i = 0; i < lse.size(); ++i) {
      ASSERT_NEAR(exact.lse[i], lse[i], 1e-12 * (1 + std::fabs(lse[i]))) << kind.name;
    }
  }
}

}  // namespace
}  // namespace mla::test
