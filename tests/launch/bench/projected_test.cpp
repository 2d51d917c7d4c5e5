// The contenders of a projected point compute what the oracle does, run after run.

#include <gtest/gtest.h>

#include "launch/bench/projected_contenders.h"

namespace mla::launch::bench {
namespace {

Point small_point(DType dtype, std::int64_t query_len) {
  return {.dtype = dtype,
          .shape = {48, 32},
          .heads = 5,
          .batch = 3,
          .context_len = 150,
          .query_len = query_len,
          .threads = 2,
          .page_block_size = 16,
          .chunk_tokens = 64,
          .d_nope = 32,
          .d_v_head = 16};
}

void expect_right(ProjectedContender& contender) {
  for (int repeat = 0; repeat < 3; ++repeat) {
    contender.prepare();
    EXPECT_FALSE(contender.check().pass) << "NaN passed";
    contender.run();
    const kernels::Comparison check = contender.check();
    EXPECT_TRUE(check.pass) << contender.name() << ": " << kernels::to_string(check);
  }
}

TEST(ProjectedContenders, AreRightInTurnsOnEveryBackend) {
  for (const kernels::HostBackend* backend : kernels::host_backends()) {
    if (!backend->why_unavailable().empty()) continue;
    for (const DType dtype : {DType::kBf16, DType::kFp16}) {
      for (const std::int64_t query_len : {1, 30}) {  // 30: more tokens than one product takes
        Pool pool(1 << 20);
        pool.fill(dtype);
        for (const bool hot : {false, true}) {
          ProjectedLayer layer(small_point(dtype, query_len), pool, *backend, hot);
          FusedContender fused(layer);
          StepsContender steps(layer);
          expect_right(fused);
          expect_right(steps);
          EXPECT_TRUE(fused.check().pass) << "a check is of the contender's own last run";
        }
      }
    }
  }
}

TEST(ProjectedLayer, TakesOtherWeightsAndPagesInEachTurnUnlessHot) {
  Pool pool(1 << 20);
  pool.fill(DType::kBf16);
  const kernels::HostBackend& backend = kernels::find_host_backend("portable");
  for (const bool hot : {false, true}) {
    ProjectedLayer layer(small_point(DType::kBf16, 1), pool, backend, hot);
    const LayerTurn a = layer.next_turn();
    const LayerTurn b = layer.next_turn();
    EXPECT_EQ(a.block_tables == b.block_tables, hot);
    EXPECT_TRUE(!hot || a.weights == b.weights);
  }
}

}  // namespace
}  // namespace mla::launch::bench
