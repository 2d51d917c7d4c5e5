// What decode_seesaw does besides what every GPU kernel must: how it groups blocks, and that blocks
// without rows and merges of many parts do no harm.

#include <gtest/gtest.h>

#include "kernels/cuda/sm90/kernels.h"
#include "tests/kernels/device_support.h"

namespace mla::test {
namespace {

using kernels::cuda::DeviceItem;
using kernels::cuda::sm90::decode_seesaw;

int blocks_for(std::initializer_list<std::int64_t> rows) {
  std::vector<DeviceItem> items;
  for (const std::int64_t count : rows) {
    DeviceItem item;
    item.context_len = 1000;
    item.heads = count;
    item.rows = {0, count};
    items.push_back(item);
  }
  const kernels::cuda::PlanSizes sizes{.d_v = 512, .chunk_tokens = 512, .exact = false};
  return decode_seesaw().geometry(items, sizes, {90, 132, 232448}).blocks_per_team;
}

TEST(SeesawGeometry, LetsAsManyBlocksReadTheSameKeysAsHaveRows) {
  EXPECT_EQ(blocks_for({17}), 1);
  EXPECT_EQ(blocks_for({64, 64}), 1);
  EXPECT_EQ(blocks_for({128, 128}), 2);
  EXPECT_EQ(blocks_for({192}), 3);
  EXPECT_EQ(blocks_for({256, 512}), 4);
}

TEST(SeesawGeometry, LeavesFewBlocksWithoutRows) {
  EXPECT_EQ(blocks_for({64, 64, 64, 256}), 1);
  EXPECT_EQ(blocks_for({128, 128, 65}), 2);
}

TEST(DecodeSeesaw, ComputesRequestsOfUnequalRows) {
  DeviceRun run{.kernel = &decode_seesaw(), .exact = false};
  const std::string reason = why_not(run);
  if (!reason.empty()) GTEST_SKIP() << reason;
  run.runs = 3;
  for (const std::int64_t heads : {40, 128}) {
    ProblemSpec spec{.shape = {heads, 1, 576, 512}};
    for (const std::int64_t length : {700, 65, 0, 3000, 128, 1}) {
      spec.requests.push_back({2, length});
      spec.requests.push_back({1 + length % 3, 64 + length});
    }
    for (const int teams : {1, 5, 0}) {
      run.teams = teams;
      expect_within_tolerance(run, Problem(spec), std::to_string(teams) + " teams");
    }
  }
}

/// Scores of odd heads rise by 40 powers of two from the first key to the last, or fall; those of
/// even heads by 5. What is changed is no value.
Problem with_slope(const ProblemSpec& spec, double sign) {
  constexpr double kSteep = 8;
  constexpr double kLast = 83;
  const std::int64_t element = spec.shape.d_qk - 1;
  Problem problem(spec);
  for (std::int64_t r = 0; r < problem.num_requests(); ++r) {
    const RequestSizes sizes = spec.requests[r];
    for (std::int64_t token = 0; token < sizes.context_len; ++token) {
      const double value = sign * kLast * double(token) / double(sizes.context_len);
      problem.mutable_kv_row(r, token, 0)[element] = to_bits(spec.dtype, value);
    }
    for (std::int64_t j = 0; j < sizes.query_len; ++j) {
      for (std::int64_t head = 0; head < spec.shape.h_q; ++head) {
        problem.mutable_q_row(r, j, head)[element] =
            to_bits(spec.dtype, head % 2 == 1 ? kSteep : 1);
      }
    }
  }
  return problem;
}

TEST(DecodeSeesaw, FollowsScoresThatRiseAndFall) {
  DeviceRun run{.kernel = &decode_seesaw(), .exact = false};
  const std::string reason = why_not(run);
  if (!reason.empty()) GTEST_SKIP() << reason;
  const ProblemSpec spec{.shape = {128, 1, 576, 512}, .requests = {{1, 1000}, {2, 700}}};
  for (const int teams : {1, 0}) {
    run.teams = teams;
    expect_within_tolerance(run, with_slope(spec, 1), "rising");
    expect_within_tolerance(run, with_slope(spec, -1), "falling");
  }
}

}  // namespace
}  // namespace mla::test
