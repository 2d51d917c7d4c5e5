#include "launch/gpus.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/error.h"
#include "kernels/decode_operator.h"
#include "tests/dist/world.h"

namespace mla::launch {
namespace {

using testing::HasSubstr;
using testing::IsEmpty;

/// A backend that sees GPUs and does nothing with them.
class Showcase final : public kernels::Backend {
 public:
  explicit Showcase(std::vector<std::string> bus_ids) : bus_ids_(std::move(bus_ids)) {}
  std::string_view name() const override { return "showcase"; }
  std::string why_unavailable() const override { return {}; }
  std::vector<kernels::Gpu> gpus() const override {
    std::vector<kernels::Gpu> gpus;
    for (const std::string& id : bus_ids_) gpus.push_back({"Example 1", id});
    return gpus;
  }
  std::unique_ptr<kernels::NodeDecoder> make_decoder(
      const Batch&, std::span<const Piece>, const kernels::RankInputs&,
      const kernels::DecoderOptions&) const override {
    throw NotCompiled("showcase", "nothing");
  }
  std::unique_ptr<kernels::DecodeOperator> make_operator(
      const Batch&, const kernels::OperatorLayout&,
      const kernels::OperatorOptions&) const override {
    throw NotCompiled("showcase", "nothing");
  }

 private:
  std::vector<std::string> bus_ids_;
};

TEST(PlaceOnGpus, DealsThemToTheRanksOfANodeInTurn) {
  const dist::Communicator& comm = dist::test_world();
  const GpuPlacement placement = place_on_gpus(comm, Showcase({"01", "02", "03", "04"}));
  EXPECT_EQ(placement.gpu, comm.node().rank() % 4);
  ASSERT_EQ(std::ssize(placement.ranks), comm.size());
  EXPECT_EQ(placement.ranks[0], "rank 0: GPU 0, Example 1");
}

TEST(PlaceOnGpus, WarnsOfRanksThatShareOne) {
  const dist::Communicator& comm = dist::test_world();
  const GpuPlacement placement = place_on_gpus(comm, Showcase({"01"}));
  EXPECT_EQ(placement.gpu, 0);
  if (comm.size() == 1) {
    EXPECT_THAT(placement.warnings, IsEmpty());
  } else {
    ASSERT_EQ(placement.warnings.size(), 1U);
    EXPECT_THAT(placement.warnings[0],
                HasSubstr(std::to_string(comm.size()) + " ranks share 1 GPU(s)"));
  }
}

TEST(PlaceOnGpus, KnowsThatRanksSeeDifferentOnes) {
  const dist::Communicator& comm = dist::test_world();
  const GpuPlacement placement = place_on_gpus(comm, Showcase({std::to_string(comm.rank())}));
  EXPECT_EQ(placement.gpu, 0);
  EXPECT_THAT(placement.warnings, IsEmpty());
}

TEST(PlaceOnGpus, HasNothingToSayOfCpus) {
  const GpuPlacement placement =
      place_on_gpus(dist::test_world(), kernels::find_backend("portable"));
  EXPECT_THAT(placement.ranks, IsEmpty());
  EXPECT_THAT(placement.warnings, IsEmpty());
}

}  // namespace
}  // namespace mla::launch
