// What decode_m16 does besides what every GPU kernel must: how it cuts batches, and that clusters
// keep their parts apart.

#include <cstring>
#include <random>

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
  return m16_geometry(items_of(count, context_len), m16_residency(132));
}

TEST(M16Geometry, GivesManyRequestsABlockEach) {
  EXPECT_EQ(geometry_of(128, 4096).blocks_per_team, 1);
  EXPECT_EQ(geometry_of(1000, 300).blocks_per_team, 1);
}

TEST(M16Geometry, GivesFewRequestsClusters) {
  EXPECT_EQ(geometry_of(4, 4096).blocks_per_team, 16);
  EXPECT_EQ(geometry_of(16, 1024).blocks_per_team, 4);
  EXPECT_EQ(geometry_of(32, 4096), (KernelGeometry{32, 3, 16, 192}));
}

TEST(M16Geometry, UsesTheWholeChipForALongRequest) {
  const KernelGeometry geometry = geometry_of(1, 65536);
  EXPECT_GE(geometry.teams * geometry.blocks_per_team, 112);
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

// Blocks that have no tile in a team's last step, and teams that have many short parts, once made
// one warpgroup write where the other had yet to read.
TEST(DecodeM16, KeepsTheManyPartsOfATeamApart) {
  std::string reason;
  if (count_devices(&reason) == 0) GTEST_SKIP() << "needs a GPU: " << reason;
  use_device(0);
  if (this_device().compute_capability != 90) GTEST_SKIP() << "the GPU is no Hopper";
  std::mt19937 random(11);
  for (const int blocks : {1, 2, 3, 4, 8, 16}) {
    for (const std::int64_t longest : {300, 2000, 5000}) {
      ProblemSpec spec;
      for (int i = 0; i < 60; ++i) {
        spec.requests.push_back(
            {1, std::uniform_int_distribution<std::int64_t>(0, longest)(random)});
      }
      const Problem problem(spec);
      const DeviceProblem on_device(problem);
      const WithGeometry kernel({blocks == 16 ? 5 : 9, blocks, 16, 64 * blocks});
      DeviceRun run{.kernel = &kernel, .exact = false};
      const Results first = on_device.run(run).results;
      const kernels::Comparison comparison = compare_results(first, run_oracle(problem));
      EXPECT_TRUE(comparison.pass)
          << blocks << " blocks, up to " << longest << ": " << kernels::to_string(comparison);
      run.runs = 20;
      const Results again = on_device.run(run).results;
      EXPECT_EQ(std::memcmp(first.out.data(), again.out.data(), first.out.size() * sizeof(float)),
                0)
          << blocks << " blocks, up to " << longest;
    }
  }
}

}  // namespace
}  // namespace mla::test
