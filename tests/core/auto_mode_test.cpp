#include "core/auto_mode.h"

#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "tests/core/batches.h"

namespace mla {
namespace {

std::vector<std::string> weighed(std::int64_t h_q, int ranks) {
  std::vector<std::string> names;
  for (const WeighedMode& m : weigh_modes(test::planning_batch({3000, 70}, h_q), ranks, {})) {
    names.push_back(to_string(m.partition.mode));
  }
  return names;
}

TEST(AutoMode, WeighsTheModesThatGiveEveryRankAHead) {
  using Names = std::vector<std::string>;
  EXPECT_EQ(weighed(16, 8), (Names{"batch", "kv", "grid:2x4", "grid:4x2", "heads"}));
  EXPECT_EQ(weighed(3, 8), (Names{"batch", "kv", "grid:2x4"}));
  EXPECT_EQ(weighed(16, 1), (Names{"batch", "kv", "heads"}));
}

TEST(AutoMode, CutsEachModeAndPredictsWhatThatCosts) {
  const Batch batch = test::planning_batch({3000, 70, 900});
  const CostModel cost{.flop_per_message = 7};
  for (const WeighedMode& m : weigh_modes(batch, 4, cost)) {
    const Partition cut = make_partition(batch, m.partition.mode, 4, cost);
    EXPECT_TRUE(same_work(m.partition, cut)) << to_string(cut.mode);
    const auto loads = loads_of(batch, m.partition, cost);
    EXPECT_EQ(m.cost, predicted_cost(batch, loads, cost).total()) << to_string(m.partition.mode);
  }
}

TEST(AutoMode, PrefersTheFirstThatIsAboutAsCheapAsTheCheapest) {
  using Costs = std::vector<double>;
  EXPECT_EQ(preferred_mode(Costs{1.02, 1.01, 1}), 0);
  EXPECT_EQ(preferred_mode(Costs{1.04, 1.01, 1}), 1);
  EXPECT_EQ(preferred_mode(Costs{1.04, 1.05, 1}), 2);
  EXPECT_EQ(preferred_mode(Costs{1, 0.5, 2}), 1);
}

}  // namespace
}  // namespace mla
