#include "core/auto_mode.h"

#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "tests/core/batches.h"

namespace mla {
namespace {

using Kind = ShardMode::Kind;

std::vector<std::string> weighed(std::int64_t h_q, int ranks) {
  std::vector<std::string> names;
  for (const WeighedMode& m : weigh_modes(test::planning_batch({3000, 70}, h_q), ranks, {})) {
    names.push_back(to_string(m.mode));
  }
  return names;
}

TEST(AutoMode, WeighsTheModesThatGiveEveryRankAHead) {
  using Names = std::vector<std::string>;
  EXPECT_EQ(weighed(16, 8), (Names{"batch", "kv", "grid:2x4", "grid:4x2", "heads"}));
  EXPECT_EQ(weighed(3, 8), (Names{"batch", "kv", "grid:2x4"}));
  EXPECT_EQ(weighed(16, 1), (Names{"batch", "kv", "heads"}));
}

TEST(AutoMode, PredictsWhatPartitionsCost) {
  const Batch batch = test::planning_batch({3000, 70, 900});
  const CostModel cost{.flop_per_message = 7};
  for (const WeighedMode& m : weigh_modes(batch, 4, cost)) {
    const auto loads = loads_of(batch, make_partition(batch, m.mode, 4, cost), cost);
    EXPECT_EQ(m.cost, predicted_cost(batch, loads, cost).total()) << to_string(m.mode);
  }
}

TEST(AutoMode, PrefersTheFirstThatIsAboutAsCheapAsTheCheapest) {
  const auto preferred = [](double batch, double kv, double heads) {
    const std::vector<WeighedMode> modes{
        {{Kind::kBatch}, batch}, {{Kind::kKv}, kv}, {{Kind::kHeads}, heads}};
    return preferred_mode(modes).kind;
  };
  EXPECT_EQ(preferred(1.02, 1.01, 1), Kind::kBatch);
  EXPECT_EQ(preferred(1.04, 1.01, 1), Kind::kKv);
  EXPECT_EQ(preferred(1.04, 1.05, 1), Kind::kHeads);
  EXPECT_EQ(preferred(1, 0.5, 2), Kind::kKv);
}

}  // namespace
}  // namespace mla
