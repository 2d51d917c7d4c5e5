// What decode_m16 does besides what every GPU kernel must: how it cuts batches, and that clusters
// keep their parts apart.

#include <cstring>
#include <random>
#include <string>

#include <gtest/gtest.h>

#include "kernels/cuda/sm90/kernels.h"
#include "kernels/cuda/sm90/m16_geometry.h"
#include "kernels/reference/compare.h"
#include "tests/kernels/device_problem.h"

namespace mla::test {
namespace {

using namespace kernels::cuda;

std::vector<DeviceItem> items_of(std::int64_t count, std::int64_t context_len) {
  DeviceItem item;
  item.context_len = context_len;
  item.heads = 16;
  item.rows = {0, 16};
  return std::vector<DeviceItem>(static_cast<std::size_t>(count), item);
}

KernelGeometry geometry_of(std::int64_t count, std::int64_t context_len) {
  return m16_geometry(items_of(count, context_len), 512, m16_residency(132));
}

TEST(M16Geometry, GivesManyRequestsABlockEach) {
  EXPECT_EQ(geometry_of(128, 4096).blocks_per_team, 1);
  EXPECT_EQ(geometry_of(1000, 300).blocks_per_team, 1);
}

TEST(M16Geometry, CutsFewRequestsOverManyBlocks) {
  EXPECT_EQ(geometry_of(4, 4096), m16_geometry_of(64, 1, 512));
  EXPECT_EQ(geometry_of(16, 1024), m16_geometry_of(128, 1, 512));
  EXPECT_EQ(geometry_of(32, 4096), m16_geometry_of(128, 1, 512));
}

TEST(M16Geometry, StartsNoBlockWithoutATile) {
  EXPECT_EQ(geometry_of(1, 4096), m16_geometry_of(64, 1, 512));
}

TEST(M16Geometry, UsesTheWholeChipForALongRequest) {
  const KernelGeometry geometry = geometry_of(1, 65536);
  EXPECT_GE(geometry.teams * geometry.blocks_per_team, 112);
  EXPECT_GT(geometry.blocks_per_team, 1);
}

TEST(M16Geometry, AsksForNoMoreThanCanRunAtATime) {
  const M16Residency residency = m16_residency(132);
  for (const std::int64_t count : {0, 1, 3, 17, 33, 200}) {
    for (const std::int64_t context_len : {0, 1, 700, 5000, 100000}) {
      const KernelGeometry geometry = geometry_of(count, context_len);
      for (std::size_t i = 0; i < residency.size(); ++i) {
        if (kM16TeamSizes[i] != geometry.blocks_per_team) continue;
        EXPECT_LE(geometry.teams, residency[i]);
      }
      EXPECT_GE(geometry.teams, 1);
      EXPECT_EQ(geometry.tile_tokens, 64 * geometry.blocks_per_team);
    }
  }
}

/// As decode_m16, with a geometry that a test chose.
class WithGeometry final : public DeviceKernel {
 public:
  explicit WithGeometry(const KernelGeometry& geometry) : geometry_(geometry) {}

  std::string_view name() const override { return sm90::decode_m16().name(); }
  std::string why_unsupported(const DecodeArgs& args) const override {
    return sm90::decode_m16().why_unsupported(args);
  }
  KernelGeometry geometry(std::span<const DeviceItem>, const PlanSizes&,
                          const DeviceInfo&) const override {
    return geometry_;
  }
  ErrorCode launch(const DecodeArgs& args, const KernelGeometry& geometry,
                   StreamHandle stream) const override {
    return sm90::decode_m16().launch(args, geometry, stream);
  }

 private:
  KernelGeometry geometry_;
};

bool has_hopper() {
  return count_devices() > 0 && compute_capability(0) == 90;
}

/// Runs of one plan give the oracle's results, then the same bits again and again.
void expect_the_same_again(const ProblemSpec& spec, const KernelGeometry& geometry, int runs) {
  const Problem problem(spec);
  const DeviceProblem on_device(problem);
  const WithGeometry kernel(geometry);
  DeviceRun run{.kernel = &kernel, .exact = false};
  const Results first = on_device.run(run).results;
  const kernels::Comparison comparison = compare_results(first, run_oracle(problem));
  EXPECT_TRUE(comparison.pass) << kernels::to_string(comparison);
  run.runs = runs;
  for (const bool as_graph : {false, true}) {
    run.as_graph = as_graph;
    const Results again = on_device.run(run).results;
    EXPECT_EQ(std::memcmp(first.out.data(), again.out.data(), first.out.size() * sizeof(float)), 0);
    EXPECT_EQ(std::memcmp(first.lse.data(), again.lse.data(), first.lse.size() * sizeof(float)), 0);
  }
}

ProblemSpec ragged(int requests, std::int64_t longest, std::mt19937& random) {
  ProblemSpec spec;
  for (int i = 0; i < requests; ++i) {
    spec.requests.push_back({1, std::uniform_int_distribution<std::int64_t>(0, longest)(random)});
  }
  return spec;
}

// Blocks that have no tile in a team's last step, and teams that have many short parts, once made
// one warpgroup write where the other had yet to read.
TEST(DecodeM16, KeepsTheManyPartsOfATeamApart) {
  if (!has_hopper()) GTEST_SKIP() << "needs a Hopper GPU";
  use_device(0);
  std::mt19937 random(11);
  for (const int blocks : {1, 2, 4, 8}) {
    for (const std::int64_t longest : {300, 2000, 5000}) {
      SCOPED_TRACE(std::to_string(blocks) + " blocks, up to " + std::to_string(longest));
      expect_the_same_again(ragged(60, longest, random), m16_geometry_of(9, blocks, 512), 20);
    }
  }
}

TEST(DecodeM16, MergesTheSameBitsByMailHoweverManyTeamsShareARequest) {
  if (!has_hopper()) GTEST_SKIP() << "needs a Hopper GPU";
  use_device(0);
  std::mt19937 random(12);
  struct Teams {
    int teams;
    int blocks;
  };
  for (const auto [teams, blocks] : {Teams{128, 1}, {40, 1}, {64, 2}, {28, 4}, {14, 8}}) {
    for (const int requests : {1, 3, 16, 50}) {
      SCOPED_TRACE(std::to_string(teams) + " teams of " + std::to_string(blocks) + ", " +
                   std::to_string(requests) + " requests");
      ProblemSpec spec = ragged(requests, 20000 / requests, random);
      spec.requests[0] = {2, 9000};
      expect_the_same_again(spec, m16_geometry_of(teams, blocks, 512), 100);
    }
  }
}

}  // namespace
}  // namespace mla::test
