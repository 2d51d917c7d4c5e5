#include "kernels/local_decode.h"

#include <algorithm>

#include <gtest/gtest.h>

#include "tests/kernels/local_problem.h"
#include "tests/support/runner.h"

namespace mla::test {
namespace {

/// What one rank makes of a problem: finished results, and the partials that others go on with.
struct Outcome {
  std::vector<ResultSlice> results;
  std::vector<std::vector<float>> open;  // m, l and o of each node, in order

  friend bool operator==(const Outcome&, const Outcome&) = default;
};

std::vector<float> values_of(const PartialView& partial) {
  std::vector<float> values(partial.m_log2, partial.m_log2 + partial.rows);
  values.insert(values.end(), partial.l, partial.l + partial.rows);
  values.insert(values.end(), partial.o, partial.o + partial.rows * partial.d_v);
  return values;
}

Outcome decode(const LocalProblem& problem, const Partition& partition, int rank, int threads,
               const kernels::Backend& backend, int runs = 1) {
  const auto pieces = partition.pieces_of(rank);
  const SplitPlan plan = make_split_plan(problem.batch(), pieces, threads);
  kernels::LocalDecoder decoder(problem.batch(), plan, backend);
  Outcome outcome;
  for (int run = 0; run < runs; ++run) {
    ResultBuilder builder(problem.batch(), partition, rank);
    outcome.open.clear();
    for (const kernels::OpenItem& item : decoder.run(problem.inputs(pieces), builder)) {
      for (const NodePartial& node : item.nodes) outcome.open.push_back(values_of(node.partial));
    }
    outcome.results = builder.take();
  }
  return outcome;
}

void expect_same_bits_for_any_threads(const LocalProblem& problem, const Partition& partition,
                                      int rank) {
  for (const kernels::Backend* backend : usable_backends()) {
    const Outcome alone = decode(problem, partition, rank, 1, *backend);
    for (const int threads : {2, 3, 7, 16, 40}) {
      EXPECT_EQ(decode(problem, partition, rank, threads, *backend), alone)
          << threads << " threads, " << backend->name();
    }
  }
}

TEST(LocalDecoder, GivesTheSameBitsForAnyNumberOfThreads) {
  const LocalProblem problem({1000, 64, 0, 1, 300});
  expect_same_bits_for_any_threads(
      problem, make_partition(problem.batch(), {ShardMode::Kind::kBatch}, 1), 0);
}

TEST(LocalDecoder, CutsRowsOfAShortRequestOverThreads) {
  for (const std::int64_t context_len : {50, 128, 150}) {
    const LocalProblem problem({context_len});
    expect_same_bits_for_any_threads(
        problem, make_partition(problem.batch(), {ShardMode::Kind::kBatch}, 1), 0);
  }
}

TEST(LocalDecoder, LeavesTheSamePartialsToOtherRanks) {
  const LocalProblem problem({200, 500});
  const Partition partition = make_partition(problem.batch(), {ShardMode::Kind::kKv}, 3);
  for (int rank = 0; rank < 3; ++rank) expect_same_bits_for_any_threads(problem, partition, rank);
}

TEST(LocalDecoder, MayRunAgain) {
  const LocalProblem problem({500, 300});
  const Partition partition = make_partition(problem.batch(), {ShardMode::Kind::kKv}, 2);
  const kernels::Backend& backend = kernels::find_backend("auto");
  for (const int threads : {1, 2, 16}) {
    EXPECT_EQ(decode(problem, partition, 0, threads, backend, 3),
              decode(problem, partition, 0, threads, backend, 1));
  }
}

TEST(LocalDecoder, CountsEveryChunkOfAnItemOnce) {
  const LocalProblem problem({150});
  const Partition partition = make_partition(problem.batch(), {ShardMode::Kind::kBatch}, 1);
  for (const int threads : {1, 16}) {
    const SplitPlan plan = make_split_plan(problem.batch(), partition.pieces_of(0), threads);
    kernels::LocalDecoder decoder(problem.batch(), plan, kernels::find_backend("auto"));
    ResultBuilder builder(problem.batch(), partition, 0);
    std::atomic<std::int64_t> chunks_done{0};
    decoder.run(problem.inputs(partition.pieces_of(0)), builder, &chunks_done);
    EXPECT_EQ(chunks_done, 3);
  }
}

}  // namespace
}  // namespace mla::test
