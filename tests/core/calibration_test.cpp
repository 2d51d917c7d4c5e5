#include "core/calibration.h"

#include <gtest/gtest.h>

#include "core/partition.h"
#include "tests/core/batches.h"

namespace mla {
namespace {

using Kind = ShardMode::Kind;

/// A rank of 100 GFLOP/s that makes its cache in no time, with given messages.
Calibration with_messages(WaySeconds near) {
  return {.flop_per_second = 1e11,
          .seconds_per_kv_byte = 0,
          .seconds_per_loaded_byte = 1e-15,
          .near = near,
          .far = {},
          .ranks_per_node = 0};
}

constexpr WaySeconds kFast{.per_message = 1e-6, .per_byte = 1e-11};
constexpr WaySeconds kSlow{.per_message = 1e-2, .per_byte = 1e-6};

Kind chosen(const Batch& batch, int ranks, const Calibration& calibration) {
  return make_partition(batch, {.kind = Kind::kAuto}, ranks, calibrated_model(calibration))
      .mode.kind;
}

TEST(Calibration, KeepsTheDefaultsWhereNothingIsKnown) {
  const CostModel cost = calibrated_model({});
  const CostModel expected;
  EXPECT_EQ(cost.flop_per_loaded_byte, expected.flop_per_loaded_byte);
  EXPECT_EQ(cost.flop_per_message, expected.flop_per_message);
  EXPECT_EQ(cost.flop_per_wire_byte, expected.flop_per_wire_byte);
  EXPECT_EQ(cost.flop_per_second, 0);
}

TEST(Calibration, TurnsSecondsIntoWhatARankCouldComputeMeanwhile) {
  const CostModel cost = calibrated_model({.flop_per_second = 1e11,
                                           .seconds_per_kv_byte = 1e-10,
                                           .padded_values = 0.5,
                                           .seconds_per_loaded_byte = 2e-10,
                                           .near = {.per_message = 1e-5, .per_byte = 1e-9},
                                           .far = {.per_message = 1e-4, .per_byte = 1e-8},
                                           .ranks_per_node = 4});
  EXPECT_DOUBLE_EQ(cost.flop_per_kv_byte, 10);
  EXPECT_DOUBLE_EQ(cost.padded_values, 0.5);
  EXPECT_DOUBLE_EQ(cost.flop_per_loaded_byte, 20);
  EXPECT_DOUBLE_EQ(cost.flop_per_message, 1e6);
  EXPECT_DOUBLE_EQ(cost.flop_per_wire_byte, 100);
  EXPECT_DOUBLE_EQ(cost.flop_per_far_message, 1e7);
  EXPECT_DOUBLE_EQ(cost.flop_per_far_byte, 1000);
  EXPECT_FALSE(cost.is_far(0, 3));
  EXPECT_TRUE(cost.is_far(3, 4));
}

TEST(Calibration, FastMessagesCutALongRequestOverRanks) {
  const Batch batch = test::planning_batch({100000, 300, 200});
  EXPECT_EQ(chosen(batch, 4, with_messages(kFast)), Kind::kKv);
}

TEST(Calibration, SlowMessagesAreAvoided) {
  const Batch batch = test::planning_batch({100000, 300, 200});
  for (const int ranks : {2, 4, 7}) {
    const Kind kind = chosen(batch, ranks, with_messages(kSlow));
    EXPECT_TRUE(kind == Kind::kBatch || kind == Kind::kHeads);
  }
}

TEST(Calibration, HeadsOfOneVectorAreCutOnlyWhereFewerRowsAreFaster) {
  Batch batch = test::planning_batch({3 * 512});  // three chunks of 16 heads
  batch.chunk_tokens = 512;
  Calibration calibration = with_messages(kFast);
  calibration.seconds_per_kv_byte = 1e-15;
  EXPECT_NE(chosen(batch, 8, calibration), Kind::kKv);
  calibration.padded_values = 1;
  EXPECT_EQ(chosen(batch, 8, calibration), Kind::kKv);
}

TEST(Calibration, SlowMessagesAndManyHeadsCutHeads) {
  Batch batch = test::planning_batch({100000, 300, 200});
  batch.shape.h_q = 128;
  EXPECT_EQ(chosen(batch, 4, with_messages(kSlow)), Kind::kHeads);
}

TEST(Calibration, WholeRequestsStayWholeWhereTheyBalance) {
  const Batch batch = test::planning_batch({5000, 5000, 5000, 5000});
  for (const WaySeconds& way : {kFast, kSlow}) {
    EXPECT_EQ(chosen(batch, 4, with_messages(way)), Kind::kBatch);
  }
}

TEST(Calibration, MessagesBetweenNodesCountByThemselves) {
  const Batch batch = test::planning_batch({100000});
  Calibration calibration = with_messages(kFast);
  calibration.far = {.per_message = 1, .per_byte = 0};
  const auto exchange_seconds = [&](int ranks_per_node) {
    calibration.ranks_per_node = ranks_per_node;
    const CostModel cost = calibrated_model(calibration);
    const Partition partition = make_partition(batch, {.kind = Kind::kKv}, 4, cost);
    return predicted_cost(batch, loads_of(batch, partition, cost), cost).exchange /
           cost.flop_per_second;
  };
  EXPECT_LT(exchange_seconds(0), 0.1);
  EXPECT_LT(exchange_seconds(4), 0.1);
  EXPECT_GE(exchange_seconds(2), 1);
}

TEST(Calibration, NeverTakesAModeThatIsPredictedSlowerThanWholeRequests) {
  for (const WaySeconds& way : {kFast, kSlow}) {
    const CostModel cost = calibrated_model(with_messages(way));
    for (const int ranks : {2, 3, 8}) {
      const Batch batch = test::planning_batch({700, 12000, 0, 64, 3000, 9000});
      const auto predicted = [&](Kind kind) {
        const Partition partition = make_partition(batch, {.kind = kind}, ranks, cost);
        return predicted_cost(batch, loads_of(batch, partition, cost), cost).total();
      };
      EXPECT_LE(predicted(Kind::kAuto), predicted(Kind::kBatch));
    }
  }
}

}  // namespace
}  // namespace mla
