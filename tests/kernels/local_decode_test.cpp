#include "kernels/local_decode.h"

#include <algorithm>

#include <gtest/gtest.h>

#include "core/result_builder.h"
#include "tests/support/generated_problem.h"
#include "tests/support/runner.h"

#ifdef MLA_HAVE_RAPIDCHECK
#include <rapidcheck.h>
#include <rapidcheck/gtest.h>
#endif

namespace mla::test {
namespace {

constexpr MlaShape kShape{128, 1, 40, 32};

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

Outcome decode(const GeneratedProblem& problem, const Partition& partition, int rank, int threads,
               const kernels::HostBackend& backend, int runs = 1) {
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

void expect_same_bits_for_any_threads(const GeneratedProblem& problem, const Partition& partition,
                                      int rank) {
  for (const kernels::HostBackend* backend : usable_backends()) {
    const Outcome alone = decode(problem, partition, rank, 1, *backend);
    for (const int threads : {2, 3, 7, 16, 40}) {
      EXPECT_EQ(decode(problem, partition, rank, threads, *backend), alone)
          << threads << " threads, " << backend->name();
    }
  }
}

TEST(LocalDecoder, GivesTheSameBitsForAnyNumberOfThreads) {
  const GeneratedProblem problem(kShape, {{1, 1000}, {1, 64}, {1, 0}, {1, 1}, {1, 300}});
  expect_same_bits_for_any_threads(
      problem, make_partition(problem.batch(), {ShardMode::Kind::kBatch}, 1), 0);
}

TEST(LocalDecoder, CutsRowsOfAShortRequestOverThreads) {
  for (const std::int64_t context_len : {50, 128, 150}) {
    const GeneratedProblem problem(kShape, {{1, context_len}});
    expect_same_bits_for_any_threads(
        problem, make_partition(problem.batch(), {ShardMode::Kind::kBatch}, 1), 0);
  }
}

TEST(LocalDecoder, LeavesTheSamePartialsToOtherRanks) {
  const GeneratedProblem problem(kShape, {{1, 200}, {1, 500}});
  const Partition partition = make_partition(problem.batch(), {ShardMode::Kind::kKv}, 3);
  for (int rank = 0; rank < 3; ++rank) expect_same_bits_for_any_threads(problem, partition, rank);
}

TEST(LocalDecoder, MayRunAgain) {
  const GeneratedProblem problem(kShape, {{1, 500}, {1, 300}});
  const Partition partition = make_partition(problem.batch(), {ShardMode::Kind::kKv}, 2);
  const kernels::HostBackend& backend = kernels::find_host_backend("auto");
  for (const int threads : {1, 2, 16}) {
    EXPECT_EQ(decode(problem, partition, 0, threads, backend, 3),
              decode(problem, partition, 0, threads, backend, 1));
  }
}

Outcome decode(kernels::NodeDecoder& decoder, const Batch& batch, const Partition& partition,
               int rank) {
  Outcome outcome;
  ResultBuilder builder(batch, partition, rank);
  for (const kernels::OpenItem& item : decoder.run(builder)) {
    for (const NodePartial& node : item.nodes) outcome.open.push_back(values_of(node.partial));
  }
  outcome.results = builder.take();
  return outcome;
}

void expect_same_bits_when_planned_anew(const kernels::Backend& backend,
                                        const GeneratedProblem& problem) {
  if (!backend.why_unsupported(problem.batch()).empty()) return;
  const std::vector<Piece> held{
      {0, {0, 128}, {0, 11}}, {1, {0, 128}, {0, 2}}, {2, {0, 128}, {0, 9}}};
  const kernels::RankInputs held_inputs = problem.inputs(held);
  for (const kernels::DecoderOptions options :
       {kernels::DecoderOptions{}, kernels::DecoderOptions{.threads = 3, .exact = false}}) {
    Batch batch = problem.batch();
    const auto kept = backend.make_decoder(batch, held, held_inputs, options);
    for (const std::int64_t shorter : {80, 60, 59, 1, 0, 70}) {
      for (std::size_t r = 0; r < batch.requests.size(); ++r) {
        batch.requests[r].context_len = problem.batch().requests[r].context_len - shorter;
      }
      for (const int ranks : {1, 2}) {
        const Partition partition = make_partition(batch, {ShardMode::Kind::kKv}, ranks);
        const auto pieces = partition.pieces_of(ranks - 1);
        const kernels::RankInputs inputs = problem.inputs(pieces);
        kept->replan(pieces, inputs);
        const auto fresh = backend.make_decoder(batch, pieces, inputs, options);
        EXPECT_EQ(decode(*kept, batch, partition, ranks - 1),
                  decode(*fresh, batch, partition, ranks - 1))
            << backend.name() << ", " << shorter << " tokens less, " << ranks << " ranks";
      }
    }
  }
}

// On GPUs, too, where there are some: they have the tensors of all pieces from the start.
TEST(NodeDecoder, GivesTheSameBitsWhenItPlansAnewForOtherLengthsAndPieces) {
  const std::vector<RequestSizes> lengths{{1, 700}, {1, 90}, {1, 64 * 9}};
  const GeneratedProblem small(kShape, lengths);
  const GeneratedProblem for_gpus({128, 1, 576, 512}, lengths);
  for (const kernels::Backend* backend : kernels::backends()) {
    if (!backend->why_unavailable().empty()) continue;
    expect_same_bits_when_planned_anew(*backend, small);
    if (!backend->gpus().empty()) expect_same_bits_when_planned_anew(*backend, for_gpus);
  }
}

TEST(LocalDecoder, CountsEveryChunkOfAnItemOnce) {
  const GeneratedProblem problem(kShape, {{1, 150}});
  const Partition partition = make_partition(problem.batch(), {ShardMode::Kind::kBatch}, 1);
  for (const int threads : {1, 16}) {
    const SplitPlan plan = make_split_plan(problem.batch(), partition.pieces_of(0), threads);
    kernels::LocalDecoder decoder(problem.batch(), plan, kernels::find_host_backend("auto"));
    ResultBuilder builder(problem.batch(), partition, 0);
    std::atomic<std::int64_t> chunks_done{0};
    decoder.run(problem.inputs(partition.pieces_of(0)), builder, &chunks_done);
    EXPECT_EQ(chunks_done, 3);
  }
}

#ifdef MLA_HAVE_RAPIDCHECK

/// The rows of some heads out of a slice of all heads.
ResultSlice heads_of(const ResultSlice& all, Range heads, std::int64_t query_len) {
  const auto row_bytes = std::ssize(all.out) / (query_len * all.heads.size());
  ResultSlice some{.request = all.request, .heads = heads, .out = {}, .lse = {}};
  for (std::int64_t token = 0; token < query_len; ++token) {
    const std::int64_t row = token * all.heads.size() + heads.begin;
    const auto* out = all.out.data() + row * row_bytes;
    some.out.insert(some.out.end(), out, out + heads.size() * row_bytes);
    some.lse.insert(some.lse.end(), all.lse.begin() + row, all.lse.begin() + row + heads.size());
  }
  return some;
}

RC_GTEST_PROP(LocalDecoder, GivesTheSameBitsForAnyThreadsPagesAndHeads, ()) {
  const auto query_len = *rc::gen::inRange<std::int64_t>(1, 4);
  std::vector<RequestSizes> lengths(*rc::gen::inRange<std::size_t>(1, 4));
  for (RequestSizes& r : lengths) r = {query_len, *rc::gen::inRange<std::int64_t>(0, 300)};
  const auto heads = *rc::gen::element<std::int64_t>(1, 3, 5, 8, 16, 20, 63, 128);
  const MlaShape shape{heads, 1, 40, 32};
  const GeneratedProblem problem(shape, lengths);
  const GeneratedProblem relaid(shape, lengths, 1, *rc::gen::element<std::int64_t>(1, 7, 64, 100));
  const int threads = *rc::gen::inRange(1, 9);
  const auto ranks =
      static_cast<int>(*rc::gen::inRange<std::int64_t>(1, std::min<std::int64_t>(4, heads) + 1));

  const Partition whole = make_partition(problem.batch(), {ShardMode::Kind::kBatch}, 1);
  const Partition sliced = make_partition(relaid.batch(), {ShardMode::Kind::kHeads}, ranks);
  for (const kernels::HostBackend* backend : usable_backends()) {
    const Outcome all = decode(problem, whole, 0, 1, *backend);
    for (int rank = 0; rank < ranks; ++rank) {
      for (const ResultSlice& slice : decode(relaid, sliced, rank, threads, *backend).results) {
        RC_ASSERT(slice == heads_of(all.results[slice.request], slice.heads, query_len));
      }
    }
  }
}

#endif

}  // namespace
}  // namespace mla::test
