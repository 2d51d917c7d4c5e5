#include "dist/engine.h"

#include <algorithm>
#include <iterator>
#include <random>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "tests/dist/problem.h"
#include "tests/dist/world.h"

namespace mla::dist {
namespace {

std::vector<ResultSlice> decode_on(const Communicator& comm, const Problem& problem,
                                   const std::string& mode, int threads,
                                   const kernels::Backend& backend) {
  const Partition partition =
      make_partition(problem.batch(), parse_shard_mode(mode, comm.size()), comm.size());
  std::vector<ResultSlice> results;
  decode(comm, problem.batch(), partition, problem.inputs(partition.pieces_of(comm.rank())),
         backend, {.compute = {.threads = threads}}, [&](std::vector<ResultSlice> some) {
           std::move(some.begin(), some.end(), std::back_inserter(results));
         });
  std::sort(results.begin(), results.end(), [](const ResultSlice& a, const ResultSlice& b) {
    return std::pair(a.request, a.heads.begin) < std::pair(b.request, b.heads.begin);
  });
  return results;
}

/// The rows of `slice` cut out of the whole results of one rank.
ResultSlice cut(const std::vector<ResultSlice>& whole, const ResultSlice& slice,
                const Batch& batch) {
  const ResultSlice& from = whole[slice.request];
  const std::int64_t row_bytes = batch.shape.d_v * size_of(batch.out_dtype);
  ResultSlice result{.request = slice.request, .heads = slice.heads, .out = {}, .lse = {}};
  for (std::int64_t j = 0; j < batch.requests[slice.request].query_len; ++j) {
    const std::int64_t row = j * from.heads.size() + slice.heads.begin;
    const auto out = from.out.begin() + row * row_bytes;
    result.out.insert(result.out.end(), out, out + slice.heads.size() * row_bytes);
    result.lse.insert(result.lse.end(), from.lse.begin() + row,
                      from.lse.begin() + row + slice.heads.size());
  }
  return result;
}

std::vector<std::string> modes_for(int ranks) {
  std::vector<std::string> modes{"auto", "heads", "kv", "batch"};
  for (int h = 1; h <= ranks; ++h) {
    if (ranks % h == 0)
      modes.push_back("grid:" + std::to_string(h) + "x" + std::to_string(ranks / h));
  }
  return modes;
}

void expect_same_bits_everywhere(const Problem& problem, const kernels::Backend& backend) {
  const Communicator& comm = test_world();
  const auto whole = decode_on(Communicator::self(), problem, "kv", 1, backend);
  ASSERT_EQ(whole.size(), problem.batch().requests.size());
  for (const std::string& mode : modes_for(comm.size())) {
    for (const int threads : {1, 3}) {
      SCOPED_TRACE(mode + ", " + std::to_string(threads) + " threads, " +
                   std::string(backend.name()));
      std::int64_t rows = 0;
      for (const ResultSlice& slice : decode_on(comm, problem, mode, threads, backend)) {
        EXPECT_EQ(slice, cut(whole, slice, problem.batch()));
        rows += static_cast<std::int64_t>(slice.lse.size());
      }
      std::int64_t all_rows = 0;
      for (const std::int64_t r : comm.all_gather(rows)) all_rows += r;
      std::int64_t expected_rows = 0;
      for (const Request& r : problem.batch().requests) {
        expected_rows += r.query_len * problem.batch().shape.h_q;
      }
      EXPECT_EQ(all_rows, expected_rows);
    }
  }
}

constexpr MlaShape kShape{.h_q = 6, .h_kv = 1, .d_qk = 40, .d_v = 32};

TEST(Engine, GivesTheSameBitsForAnyRanksModesAndThreads) {
  const Problem problem(kShape, {{1, 700}, {2, 65}, {1, 1}, {3, 1000}, {1, 64}}, 1);
  for (const kernels::Backend* backend : kernels::backends()) {
    if (backend->why_unavailable().empty()) expect_same_bits_everywhere(problem, *backend);
  }
}

TEST(Engine, CutsOneLongRequestOverAllRanks) {
  const Problem problem(kShape, {{1, 64 * 37 + 5}}, 2);
  expect_same_bits_everywhere(problem, kernels::find_backend("auto"));
}

TEST(Engine, WritesRequestsWithoutKeys) {
  const Problem problem(kShape, {{1, 0}, {2, 0}, {1, 300}, {4, 2}}, 3);
  expect_same_bits_everywhere(problem, kernels::find_backend("auto"));
  for (const ResultSlice& slice :
       decode_on(test_world(), problem, "kv", 1, kernels::find_backend("auto"))) {
    if (problem.batch().requests[slice.request].context_len > 0) continue;
    for (const float lse : slice.lse) EXPECT_EQ(lse, std::numeric_limits<float>::infinity());
    for (const std::byte b : slice.out) EXPECT_EQ(b, std::byte{0});
  }
}

TEST(Engine, ServesSeveralKvHeadsAndManyRows) {
  const Problem problem({.h_q = 12, .h_kv = 3, .d_qk = 24, .d_v = 16},
                        {{1, 200}, {50, 400}, {7, 100}}, 4);
  expect_same_bits_everywhere(problem, kernels::find_backend("auto"));
}

TEST(Engine, DoesNotDependOnTheOrderOfABatch) {
  const std::vector<Problem::Lengths> lengths{{1, 500}, {1, 90}, {2, 333}, {1, 64}};
  std::mt19937_64 random(5);
  for (int round = 0; round < 10; ++round) {
    std::vector<Problem::Lengths> some;
    for (const auto& l : lengths) {
      if (random() % 2 == 0) some.push_back(l);
    }
    if (some.empty()) continue;
    expect_same_bits_everywhere(Problem(kShape, some, random()), kernels::find_backend("auto"));
  }
}

}  // namespace
}  // namespace mla::dist
