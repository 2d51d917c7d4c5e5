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

}  // namespace
}  // namespace mla::test
