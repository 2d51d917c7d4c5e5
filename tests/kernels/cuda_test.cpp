// What every GPU kernel must do, on a GPU. Where there is none, the tests skip and say so.

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include <gtest/gtest.h>

#include "core/chunk_tree.h"
#include "core/partial_fold.h"
#include "kernels/reference/compare.h"
#include "tests/kernels/device_problem.h"
#include "tests/kernels/device_support.h"
#include "tests/kernels/grid.h"

namespace mla::test {
namespace {

using kernels::cuda::DeviceItem;
using kernels::cuda::DeviceKernel;

/// Everything runs for exact and for fast plans, where the kernel knows them.
class GpuKernel : public testing::TestWithParam<std::tuple<const DeviceKernel*, bool>> {
 protected:
  void SetUp() override {
    const std::string reason = why_not(run());
    if (!reason.empty()) GTEST_SKIP() << reason;
  }
  static DeviceRun run() { return {std::get<0>(GetParam()), std::get<1>(GetParam())}; }
};

TEST_P(GpuKernel, IsWithinToleranceOnASampleOfTheGrid) {
  constexpr double kSmallEnough = 4e8;
  const std::vector<GridPoint> points = flashmla_grid();
  int checked = 0;
  for (std::size_t i = std::get<1>(GetParam()) ? 0 : 30; i < points.size(); i += 61) {
    const auto index = static_cast<std::int64_t>(i);
    const ProblemSpec spec = device_spec(points[i], index, run());
    if (flops_of(spec) > kSmallEnough) continue;
    expect_within_tolerance(run(), Problem(spec),
                            to_string(points[i]) + " (index " + std::to_string(i) + ")");
    ++checked;
  }
  EXPECT_GT(checked, 40);
}

TEST_P(GpuKernel, ComputesBatchesOfAllKindsOfLengths) {
  for (const DType dtype : {DType::kBf16, DType::kFp16}) {
    for (const std::int64_t heads : {1, 16, 17, 64, 128}) {
      ProblemSpec spec{.shape = {heads, 1, 576, 512}, .dtype = dtype};
      for (const std::int64_t length : {1, 63, 64, 65, 512, 513, 4641, 0, 700, 1500, 1, 17}) {
        spec.requests.push_back({1 + length % 2, length});
      }
      expect_within_tolerance(run(), Problem(spec), std::to_string(heads) + " heads");
    }
  }
}

TEST_P(GpuKernel, WritesRowsThatSeeNoKey) {
  const Problem problem({.requests = {{4, 2}, {1, 0}, {3, 600}, {2, 1}}});
  expect_within_tolerance(run(), problem, "rows without keys");
}

// One that only later queries of its request see may reach the earlier ones too: they read the same
// tiles of values, with weights of zero.
TEST_P(GpuKernel, KeepsANanThatAllRowsSee) {
  Problem problem({.requests = {{1, 700}, {1, 100}, {2, 65}, {1, 5}}});
  problem.mutable_kv_row(0, 650, 0)[3] = 0x7fff;
  problem.mutable_kv_row(2, 10, 0)[570] = 0x7fff;
  problem.mutable_kv_row(3, 4, 0)[3] = 0x7fff;
  expect_within_tolerance(run(), problem, "NaN in keys");
}

TEST_P(GpuKernel, ReadsALongContext) {
  const Problem problem({.requests = {{1, 140001}, {1, 300}}});
  expect_within_tolerance(run(), problem, "140001 tokens");
}

TEST_P(GpuKernel, ReadsPagesBeyondTwoToThe31Elements) {
  const Problem problem({.requests = {{1, 300}, {2, 64}}});
  const std::int64_t first_page = (std::int64_t{1} << 31) / (64 * 576) + 1;
  const DeviceProblem far(problem, first_page);
  const kernels::Comparison comparison =
      compare_results(far.run(run()).results, run_oracle(problem));
  EXPECT_TRUE(comparison.pass) << kernels::to_string(comparison);
}

/// Bits, so that NaN equals NaN.
bool same(const Results& a, const Results& b) {
  const auto equal = [](const std::vector<float>& x, const std::vector<float>& y) {
    return x.size() == y.size() && std::memcmp(x.data(), y.data(), x.size() * sizeof(float)) == 0;
  };
  return equal(a.out, b.out) && equal(a.lse, b.lse);
}

Problem ragged_problem() {
  return Problem({.requests = {{1, 3000}, {2, 65}, {1, 513}, {3, 1700}, {1, 0}, {1, 64}}});
}

TEST_P(GpuKernel, MayRunAPlanAgainAndAgain) {
  const Problem problem = ragged_problem();
  const DeviceProblem on_device(problem);
  DeviceRun again = run();
  again.runs = 5;
  EXPECT_TRUE(same(on_device.run(run()).results, on_device.run(again).results));
}

TEST_P(GpuKernel, MayBeCapturedIntoAGraph) {
  const Problem problem = ragged_problem();
  const DeviceProblem on_device(problem);
  DeviceRun graph = run();
  graph.as_graph = true;
  graph.runs = 3;
  EXPECT_TRUE(same(on_device.run(run()).results, on_device.run(graph).results));
}

/// The laws of exact plans.
class ExactGpuKernel : public GpuKernel {};

/// True if every row of `some` that was written is the same row of `all`, and at least `least`
/// were.
bool written_rows_agree(const Results& some, const Results& all, std::int64_t least) {
  const std::size_t d_v = all.out.size() / all.lse.size();
  std::int64_t written = 0;
  for (std::size_t row = 0; row < all.lse.size(); ++row) {
    if (std::isnan(some.lse[row])) continue;
    ++written;
    if (some.lse[row] != all.lse[row]) return false;
    if (std::memcmp(&some.out[row * d_v], &all.out[row * d_v], d_v * sizeof(float)) != 0) {
      return false;
    }
  }
  return written >= least;
}

TEST_P(ExactGpuKernel, GivesARequestTheSameBitsInAnyBatch) {
  const Problem problem = ragged_problem();
  const DeviceProblem on_device(problem);
  const Results all = on_device.run(run()).results;
  const std::vector<DeviceItem> items = on_device.items();
  for (std::size_t i = 0; i < items.size(); ++i) {
    const Results alone = on_device.run(run(), std::span(items).subspan(i, 1)).results;
    EXPECT_TRUE(written_rows_agree(alone, all, items[i].rows.size())) << "request " << i;
  }
}

TEST_P(ExactGpuKernel, GivesTheSameBitsForAnyNumberOfTeams) {
  const Problem problem = ragged_problem();
  const DeviceProblem on_device(problem);
  const Results all = on_device.run(run()).results;
  for (const int teams : {1, 2, 7, 31}) {
    DeviceRun fewer = run();
    fewer.teams = teams;
    EXPECT_TRUE(same(on_device.run(fewer).results, all)) << teams << " teams";
  }
}

TEST_P(ExactGpuKernel, GivesTheSameBitsForAnyPageSize) {
  const Problem problem = ragged_problem();
  const Results all = DeviceProblem(problem).run(run()).results;
  for (const std::int64_t page : {64, 16, 1, 256, 32}) {
    for (const std::int64_t padding : {0, 8}) {
      const Problem other = problem.relaid(page, padding, padding);
      const DeviceProblem on_device(other);
      if (!on_device.why_unsupported(run()).empty()) continue;
      EXPECT_TRUE(same(on_device.run(run()).results, all))
          << "pages of " << page << ", padding " << padding;
    }
  }
}

TEST_P(ExactGpuKernel, GivesARowTheSameBitsInAnyCompany) {
  const Problem problem({.shape = {128, 1, 576, 512}, .requests = {{2, 1100}, {1, 600}}});
  const DeviceProblem on_device(problem);
  const Results all = on_device.run(run()).results;
  for (const Range rows : {Range{0, 1}, Range{5, 12}, Range{17, 33}, Range{100, 200}}) {
    std::vector<DeviceItem> items{on_device.items()[0]};
    items[0].rows = rows;
    EXPECT_TRUE(written_rows_agree(on_device.run(run(), items).results, all, rows.size()))
        << "rows " << rows.begin << " to " << rows.end;
  }
  for (const Range heads : {Range{0, 16}, Range{3, 4}, Range{64, 128}, Range{100, 127}}) {
    const std::vector<DeviceItem> items{on_device.item(0, 0, heads), on_device.item(1, 0, heads)};
    EXPECT_TRUE(written_rows_agree(on_device.run(run(), items).results, all, 3 * heads.size()))
        << "heads " << heads.begin << " to " << heads.end;
  }
}

TEST_P(ExactGpuKernel, LeavesNodesThatFoldToTheSameBits) {
  const Problem problem({.shape = {20, 1, 576, 512}, .requests = {{2, 9 * 512 - 100}}});
  const DeviceProblem on_device(problem);
  const Results all = on_device.run(run()).results;
  const std::int64_t rows = problem.rows(0);
  const std::int64_t d_v = problem.spec().shape.d_v;
  const std::int64_t num_chunks = 9;
  for (const std::vector<std::int64_t>& cuts :
       {std::vector<std::int64_t>{0, 4, 9}, {0, 3, 9}, {0, 1, 2, 7, 9}, {0, 8, 9}}) {
    std::vector<DeviceItem> items;
    std::vector<TreeNode> tree;
    for (std::size_t i = 0; i + 1 < cuts.size(); ++i) {
      items.push_back(on_device.items()[0]);
      items.back().chunks = {cuts[i], cuts[i + 1]};
      for (const TreeNode node : maximal_nodes(items.back().chunks, num_chunks)) {
        tree.push_back(node);
      }
    }
    DeviceResults pieces = on_device.run(run(), items);
    std::vector<NodePartial> nodes;
    for (auto& of_item : pieces.nodes) {
      for (Nodes& node : of_item) nodes.push_back({tree[nodes.size()], node[0]});
    }
    fold_partials(nodes, num_chunks);
    ASSERT_TRUE(is_root(nodes, num_chunks));
    Results folded{std::vector<float>(rows * d_v), std::vector<float>(rows)};
    for (std::int64_t row = 0; row < rows; ++row) {
      finalize_out(nodes[0].partial, row, {0, d_v}, &folded.out[row * d_v]);
      folded.lse[row] = finalize_lse(nodes[0].partial, row);
    }
    EXPECT_TRUE(same(folded, all)) << cuts.size() - 1 << " pieces";
  }
}

std::vector<std::tuple<const DeviceKernel*, bool>> kernels_for(bool exact) {
  std::vector<std::tuple<const DeviceKernel*, bool>> cases;
  for (const DeviceKernel* kernel : all_device_kernels()) cases.emplace_back(kernel, exact);
  return cases;
}

const auto kName = [](const auto& test) { return test_name(*std::get<0>(test.param)); };

INSTANTIATE_TEST_SUITE_P(Exact, GpuKernel, testing::ValuesIn(kernels_for(true)), kName);
INSTANTIATE_TEST_SUITE_P(Fast, GpuKernel, testing::ValuesIn(kernels_for(false)), kName);
INSTANTIATE_TEST_SUITE_P(Laws, ExactGpuKernel, testing::ValuesIn(kernels_for(true)), kName);
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(GpuKernel);
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(ExactGpuKernel);

}  // namespace
}  // namespace mla::test
