#include "kernels/reference/oracle.h"

#include <cmath>
#include <limits>
#include <vector>

#include <gtest/gtest.h>

#include "tests/support/problem.h"

namespace mla::test {
namespace {

// Three tokens whose scores are 0, ln 2 and ln 4 by construction: weights 1/7, 2/7, 4/7.
TEST(Oracle, AgreesWithAHandComputedSoftmax) {
  Problem problem(
      {.shape = {1, 1, 16, 16}, .page_block_size = 2, .causal = false, .requests = {{1, 3}}});
  std::uint16_t* q = problem.mutable_q_row(0, 0, 0);
  for (int d = 0; d < 16; ++d) q[d] = to_bits(DType::kBf16, d == 0 ? 1 : 0);
  for (int t = 0; t < 3; ++t) {
    std::uint16_t* row = problem.mutable_kv_row(0, t, 0);
    for (int d = 0; d < 16; ++d) row[d] = to_bits(DType::kBf16, 0);
    row[0] = to_bits(DType::kBf16, t);
    row[1] = to_bits(DType::kBf16, t == 1 ? 7 : 0);
  }
  kernels::DecodeParams params = problem.params(0, 0, {0, 1});
  params.scale_log2 = 1;  // scores to base 2 are 0, 1, 2
  std::vector<double> out(16);
  double lse = 0;
  kernels::oracle(params, out.data(), &lse);
  EXPECT_NEAR(out[0], 2.0 / 7 + 2 * 4.0 / 7, 1e-12);
  EXPECT_NEAR(out[1], 2, 1e-12);
  EXPECT_EQ(out[2], 0);
  EXPECT_NEAR(lse, std::log(7.0), 1e-12);
}

TEST(Oracle, GivesZerosAndInfinityToARowThatSeesNothing) {
  const Problem problem({.shape = {2, 1, 24, 16}, .requests = {{3, 2}}});
  std::vector<double> out(6 * 16, -1);
  std::vector<double> lse(6, -1);
  kernels::oracle(problem.params(0, 0, {0, 6}), out.data(), lse.data());
  for (int row = 0; row < 2; ++row) {
    EXPECT_EQ(lse[row], std::numeric_limits<double>::infinity());
    for (int d = 0; d < 16; ++d) EXPECT_EQ(out[row * 16 + d], 0);
  }
  for (int row = 2; row < 6; ++row) EXPECT_TRUE(std::isfinite(lse[row]));
}

TEST(Oracle, AQueryThatSeesOneKeyReturnsItsValue) {
  Problem problem({.shape = {1, 1, 24, 16}, .requests = {{2, 2}}});
  std::vector<double> out(2 * 16);
  std::vector<double> lse(2);
  kernels::oracle(problem.params(0, 0, {0, 2}), out.data(), lse.data());
  const std::uint16_t* row = problem.mutable_kv_row(0, 0, 0);
  for (int d = 0; d < 16; ++d) {
    EXPECT_EQ(out[d], static_cast<double>(to_float(Bf16{row[d]})));
  }
}

}  // namespace
}  // namespace mla::test
