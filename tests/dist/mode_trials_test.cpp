#include "dist/mode_trials.h"

#include <algorithm>
#include <set>
#include <vector>

#include <gtest/gtest.h>

#include "core/auto_mode.h"
#include "core/calibration.h"
#include "tests/dist/problem.h"
#include "tests/dist/world.h"

namespace mla::dist {
namespace {

using Kind = ShardMode::Kind;

/// Rounds of a single way that takes `seconds`.
int count_rounds(double seconds, double enough_seconds) {
  int runs = 0;
  seconds_in_turn(test_world(), 1, enough_seconds, [&](std::size_t) {
    ++runs;
    return seconds;
  });
  return runs / 2;
}

TEST(SecondsInTurn, AreThoseOfTheSlowestRankOnAllRanks) {
  const int rank = test_world().rank();
  const auto seconds = seconds_in_turn(test_world(), 3, 1, [&](std::size_t way) {
    const bool is_slow = static_cast<int>(way) % test_world().size() == rank;
    return static_cast<double>(way + 1) * (is_slow ? 10 : 1);
  });
  EXPECT_EQ(seconds, (std::vector<double>{10, 20, 30}));
}

TEST(SecondsInTurn, LeaveOutTheFirstRunOfATurnAndWhatIsRare) {
  std::vector<int> runs(2, 0);
  const auto seconds = seconds_in_turn(test_world(), 2, 1, [&](std::size_t way) {
    const int run = runs[way]++;
    const bool is_disturbed = run % 2 == 0 || run == 3 || (way == 1 && run == 7);
    return is_disturbed ? 100.0 : 1.0 + static_cast<double>(way);
  });
  EXPECT_EQ(seconds, (std::vector<double>{1, 2}));
}

TEST(SecondsInTurn, BeginEachRoundWithAnotherWay) {
  std::vector<std::size_t> order;
  seconds_in_turn(test_world(), 3, 0, [&](std::size_t way) {
    order.push_back(way);
    return 1.0;
  });
  order.resize(18);
  EXPECT_EQ(order,
            (std::vector<std::size_t>{0, 0, 1, 1, 2, 2, 1, 1, 2, 2, 0, 0, 2, 2, 0, 0, 1, 1}));
}

TEST(SecondsInTurn, TakeMoreRoundsOfWhatIsShort) {
  EXPECT_EQ(count_rounds(1, 0.5), 5);
  EXPECT_EQ(count_rounds(0.03125, 0.5), 8);
  EXPECT_EQ(count_rounds(1e-9, 0.5), 50);
  // Ranks that differ stop together, by the slowest.
  EXPECT_EQ(count_rounds(test_world().rank() == 0 ? 0.03125 : 1e-9, 0.5), 8);
}

TEST(ModeTrials, MeasuredTimesDecideAndTiesGoToTheSimplerMode) {
  const ShardMode batch{.kind = Kind::kBatch};
  const ShardMode kv{.kind = Kind::kKv};
  const ShardMode heads{.kind = Kind::kHeads};
  EXPECT_EQ(fastest_mode({{batch, 3, 2.0}, {kv, 2, 1.5}, {heads, 1, 3.0}}), kv);
  EXPECT_EQ(fastest_mode({{batch, 3, 1.02}, {kv, 2, 1.01}, {heads, 1, 1.0}}), batch);
}

/// A machine of ranks that compute at this rate, and send messages for next to nothing.
CostModel machine_of(double flop_per_second) {
  return calibrated_model({.flop_per_second = flop_per_second,
                           .seconds_per_kv_byte = 1e-15,
                           .seconds_per_loaded_byte = 1e-15,
                           .near = {.per_message = 1e-9, .per_byte = 1e-15},
                           .far = {},
                           .ranks_per_node = 0});
}

const Problem& problem() {
  static const Problem it({.h_q = 16, .h_kv = 1, .d_qk = 40, .d_v = 32},
                          {{1, 700}, {2, 500}, {1, 0}, {1, 65}}, 1);
  return it;
}

std::vector<ModeTrial> try_on(const CostModel& cost, std::int64_t steps) {
  return try_modes(test_world(), problem().batch(), kernels::find_host_backend("auto"),
                   {.compute = {.threads = 1}, .cost = cost}, steps);
}

TEST(ModeTrials, TryWhatIsPredictedCloseToTheFastestOnceEach) {
  const int ranks = test_world().size();
  const CostModel cost = machine_of(1e9);
  const std::vector<ModeTrial> trials = try_on(cost, 1'000'000);
  if (ranks == 1) {
    EXPECT_TRUE(trials.empty());  // all modes are one
    return;
  }
  double least = 1e9;
  for (const WeighedMode& m : weigh_modes(problem().batch(), ranks, cost)) {
    least = std::min(least, m.cost / cost.flop_per_second);
  }
  std::vector<Partition> partitions;
  for (const ModeTrial& trial : trials) {
    EXPECT_GT(trial.seconds, 0);
    EXPECT_LE(trial.predicted_seconds, 3 * least);
    partitions.push_back(make_partition(problem().batch(), trial.mode, ranks, cost));
    for (std::size_t other = 0; other + 1 < partitions.size(); ++other) {
      EXPECT_FALSE(same_work(partitions[other], partitions.back()));
    }
    for (const ModeTrial& other : test_world().all_gather(trial)) {
      EXPECT_EQ(other.mode, trial.mode);
      EXPECT_EQ(other.seconds, trial.seconds);
    }
  }
  const std::size_t count = trials.size();
  for (const std::size_t other : test_world().all_gather(count)) EXPECT_EQ(other, count);
}

TEST(ModeTrials, TryNothingWhereItWouldNotPayOrTakeLong) {
  EXPECT_TRUE(try_on(machine_of(1e9), 1).empty());
  EXPECT_TRUE(try_on(machine_of(1e3), 1'000'000).empty());
  EXPECT_TRUE(try_on({}, 1'000'000).empty());
}

TEST(ModeTrials, SayWhatWasPredictedAndMeasured) {
  EXPECT_EQ(to_string(std::vector<ModeTrial>{{{Kind::kKv}, 0.001, 0.0025},
                                             {{Kind::kGrid, 2, 4}, 0.1, 0.0012344}}),
            "kv 1.000 (2.500), grid:2x4 100.000 (1.234)");
}

}  // namespace
}  // namespace mla::dist
