// Every contender of `meshmla bench` computes what the oracle does, and a wrong result is seen.

#include "launch/bench/contender.h"

#include <gtest/gtest.h>

#include "launch/bench/decode_contender.h"
#include "launch/bench/peers.h"

namespace mla::launch::bench {
namespace {

Point small_point() {
  return {.dtype = DType::kBf16,
          .shape = {48, 32},
          .heads = 5,
          .batch = 3,
          .context_len = 150,
          .query_len = 2,
          .threads = 2,
          .page_block_size = 16,
          .chunk_tokens = 64};
}

Pool filled_pool(DType dtype) {
  Pool pool(1 << 20);
  pool.fill(dtype);
  return pool;
}

TEST(DecodeContender, IsRightOnEveryBackendInEachRepeat) {
  for (const kernels::HostBackend* backend : kernels::host_backends()) {
    if (!backend->why_unavailable().empty()) continue;
    for (const DType dtype : {DType::kBf16, DType::kFp16}) {
      Point point = small_point();
      point.dtype = dtype;
      const Pool pool = filled_pool(dtype);
      const Workload workload(point);
      for (const bool hot : {false, true}) {
        DecodeContender contender(workload, pool, *backend, hot);
        for (int repeat = 0; repeat < 3; ++repeat) {
          contender.prepare();
          EXPECT_FALSE(contender.check().pass) << "NaN passed";
          contender.run();
          EXPECT_TRUE(contender.check().pass) << backend->name();
        }
      }
    }
  }
}

TEST(DecodeContender, IsRightForRequestsOfAnyLengths) {
  const Pool pool = filled_pool(DType::kBf16);
  Point point = small_point();
  set_lengths(point, {150, 1, 700, 64, 2});
  const Workload workload(point);
  DecodeContender contender(workload, pool, kernels::find_host_backend("auto"), false);
  for (int repeat = 0; repeat < 3; ++repeat) {
    contender.prepare();
    EXPECT_GT(contender.timed_run(), 0);
    EXPECT_TRUE(contender.check().pass);
  }
}

TEST(Peers, AreRightForFewAndManyRequestsAndLonelyQueries) {
  const Pool pool = filled_pool(DType::kBf16);
  Peers peers(pool, 1 << 24, false);
  for (const std::int64_t batch : {1, 2, 3}) {
    for (const std::int64_t context_len : {1, 16, 150}) {
      Point point = small_point();
      point.batch = batch;
      point.context_len = context_len;
      const Workload workload(point);
      std::vector<std::string> notes;
      for (const auto& peer : peers.contenders(workload, notes)) {
        for (int repeat = 0; repeat < 2; ++repeat) {
          peer->prepare();
          peer->run();
          const kernels::Comparison check = peer->check();
          EXPECT_TRUE(check.pass) << peer->name() << ", " << to_string(point) << ": "
                                  << kernels::to_string(check);
        }
      }
    }
  }
}

TEST(CheckSample, SeesWrongRows) {
  const Pool pool = filled_pool(DType::kBf16);
  const Workload workload(small_point());
  const std::vector<std::int32_t> table(10, 0);
  kernels::RankInputs inputs = workload.inputs(pool.view(16, 48));
  for (auto& piece : inputs.pieces) piece.block_table = table.data();
  const auto zeros = [&](std::int64_t, std::int64_t) {
    return RowResult{.out = std::vector<float>(32), .lse = 0};
  };
  EXPECT_FALSE(check_sample(workload, inputs, zeros).pass);
}

}  // namespace
}  // namespace mla::launch::bench
