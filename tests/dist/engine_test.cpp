#include "dist/engine.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "core/growing_plan.h"
#include "tests/dist/problem.h"
#include "tests/dist/world.h"

namespace mla::dist {
namespace {

/// How to decode, beside the problem.
struct Way {
  std::string mode = "kv";
  int threads = 1;
  ExchangeKind exchange = ExchangeKind::kAuto;
  int pretended_ranks_per_node = 0;
  bool exact = true;

  std::string text() const {
    return mode + ", " + std::to_string(threads) + " threads, " + std::string(to_string(exchange)) +
           ", nodes of " + std::to_string(pretended_ranks_per_node);
  }
};

DecodeSettings settings_of(const Way& way) {
  return {.compute = {.threads = way.threads, .exact = way.exact},
          .exchange = way.exchange,
          .pretended_ranks_per_node = way.pretended_ranks_per_node};
}

/// Gathers what `run` hands over, by request and heads.
std::vector<ResultSlice> results_of(const std::function<void(const OnResults&)>& run) {
  std::vector<ResultSlice> results;
  run([&](const std::vector<ResultSlice>& some) {
    results.insert(results.end(), some.begin(), some.end());
  });
  std::sort(results.begin(), results.end(), [](const ResultSlice& a, const ResultSlice& b) {
    return std::pair(a.request, a.heads.begin) < std::pair(b.request, b.heads.begin);
  });
  return results;
}

/// Decodes requests of the lengths in `batch`, which is the problem's or a shorter one.
std::vector<ResultSlice> decode_on(const Communicator& comm, const Problem& problem,
                                   const Batch& batch, const Way& way,
                                   const kernels::Backend& backend) {
  const Partition partition =
      make_partition(batch, parse_shard_mode(way.mode, comm.size()), comm.size());
  return results_of([&](const OnResults& on_results) {
    decode(comm, batch, partition, problem.inputs(partition.pieces_of(comm.rank())), backend,
           settings_of(way), on_results);
  });
}

std::vector<ResultSlice> decode_on(const Communicator& comm, const Problem& problem, const Way& way,
                                   const kernels::Backend& backend) {
  return decode_on(comm, problem, problem.batch(), way, backend);
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

/// Exchanges, two-level ones on pretended nodes.
const Way kExchanges[] = {{.exchange = ExchangeKind::kP2p},
                          {.exchange = ExchangeKind::kAlltoallv},
                          {.exchange = ExchangeKind::kShm},
                          {.exchange = ExchangeKind::kTwoLevel},
                          {.exchange = ExchangeKind::kTwoLevel, .pretended_ranks_per_node = 2},
                          {.exchange = ExchangeKind::kTwoLevel, .pretended_ranks_per_node = 3},
                          {.pretended_ranks_per_node = 1}};

/// All modes with 1 and 3 threads, each with an exchange of its own; with all exchanges if the
/// environment has MLA_FULL_GRID.
std::vector<Way> ways_for(int ranks) {
  const bool full = std::getenv("MLA_FULL_GRID") != nullptr;
  std::vector<Way> ways;
  std::size_t next = 0;
  for (const std::string& mode : modes_for(ranks)) {
    for (const int threads : {1, 3}) {
      for (std::size_t i = 0; i < (full ? std::size(kExchanges) : 1); ++i) {
        Way way = kExchanges[next++ % std::size(kExchanges)];
        way.mode = mode;
        way.threads = threads;
        ways.push_back(way);
      }
    }
  }
  return ways;
}

void expect_all_rows_once(const Problem& problem, const std::vector<ResultSlice>& slices) {
  std::int64_t rows = 0;
  for (const ResultSlice& slice : slices) rows += static_cast<std::int64_t>(slice.lse.size());
  std::int64_t all_rows = 0;
  for (const std::int64_t r : test_world().all_gather(rows)) all_rows += r;
  std::int64_t expected_rows = 0;
  for (const Request& r : problem.batch().requests) {
    expected_rows += r.query_len * problem.batch().shape.h_q;
  }
  EXPECT_EQ(all_rows, expected_rows);
}

void expect_same_bits(const Problem& problem, const std::vector<ResultSlice>& whole, const Way& way,
                      const kernels::Backend& backend) {
  SCOPED_TRACE(way.text() + ", " + std::string(backend.name()));
  const auto slices = decode_on(test_world(), problem, way, backend);
  for (const ResultSlice& slice : slices) EXPECT_EQ(slice, cut(whole, slice, problem.batch()));
  expect_all_rows_once(problem, slices);
}

void expect_same_bits_everywhere(const Problem& problem, const kernels::Backend& backend) {
  const auto whole = decode_on(Communicator::self(), problem, {}, backend);
  ASSERT_EQ(whole.size(), problem.batch().requests.size());
  for (const Way& way : ways_for(test_world().size())) {
    expect_same_bits(problem, whole, way, backend);
  }
}

constexpr MlaShape kShape{.h_q = 6, .h_kv = 1, .d_qk = 40, .d_v = 32};

TEST(Engine, GivesTheSameBitsForAnyRanksModesAndThreads) {
  const Problem problem(kShape, {{1, 700}, {2, 65}, {1, 1}, {3, 1000}, {1, 64}}, 1);
  for (const kernels::Backend* backend : kernels::host_backends()) {
    if (backend->why_unavailable().empty()) expect_same_bits_everywhere(problem, *backend);
  }
}

TEST(Engine, CutsOneLongRequestOverAllRanks) {
  const Problem problem(kShape, {{1, 64 * 37 + 5}}, 2);
  expect_same_bits_everywhere(problem, kernels::find_host_backend("auto"));
}

TEST(Engine, DealsManyHeadsOfALongRequestOutToOwners) {
  const Problem problem({.h_q = 200, .h_kv = 1, .d_qk = 24, .d_v = 16}, {{1, 64 * 40}}, 9);
  const kernels::Backend& backend = kernels::find_host_backend("auto");
  const auto whole = decode_on(Communicator::self(), problem, {}, backend);
  const Communicator& comm = test_world();
  const Partition partition =
      make_partition(problem.batch(), {.kind = ShardMode::Kind::kKv}, comm.size());
  const std::size_t owned = partition.pieces_of(comm.rank()).size();  // one, if there is work
  for (const Way& way : kExchanges) {
    expect_same_bits(problem, whole, way, backend);
    EXPECT_EQ(decode_on(comm, problem, way, backend).size(), owned);
  }
}

TEST(Engine, WritesRequestsWithoutKeys) {
  const Problem problem(kShape, {{1, 0}, {2, 0}, {1, 300}, {4, 2}}, 3);
  expect_same_bits_everywhere(problem, kernels::find_host_backend("auto"));
  for (const ResultSlice& slice :
       decode_on(test_world(), problem, {}, kernels::find_host_backend("auto"))) {
    if (problem.batch().requests[slice.request].context_len > 0) continue;
    for (const float lse : slice.lse) EXPECT_EQ(lse, std::numeric_limits<float>::infinity());
    for (const std::byte b : slice.out) EXPECT_EQ(b, std::byte{0});
  }
}

TEST(Engine, ServesSeveralKvHeadsAndManyRows) {
  const Problem problem({.h_q = 12, .h_kv = 3, .d_qk = 24, .d_v = 16},
                        {{1, 200}, {50, 400}, {7, 100}}, 4);
  expect_same_bits_everywhere(problem, kernels::find_host_backend("auto"));
}

TEST(Engine, GivesTheSameBitsWithEveryExchange) {
  const Problem problem({.h_q = 34, .h_kv = 2, .d_qk = 40, .d_v = 32},
                        {{1, 64 * 50}, {1, 90}, {2, 64 * 33 + 1}, {1, 64 * 7}}, 6);
  const kernels::Backend& backend = kernels::find_host_backend("auto");
  const auto whole = decode_on(Communicator::self(), problem, {}, backend);
  for (const Way& way : kExchanges) expect_same_bits(problem, whole, way, backend);
}

TEST(Engine, DoesNotDependOnTheOrderOfABatch) {
  const Problem problem(kShape, {{1, 500}, {1, 90}, {2, 333}, {1, 64}}, 5);
  const kernels::Backend& backend = kernels::find_host_backend("auto");
  auto whole = decode_on(Communicator::self(), problem, {}, backend);
  std::reverse(whole.begin(), whole.end());
  for (std::size_t i = 0; i < whole.size(); ++i) whole[i].request = static_cast<std::int64_t>(i);
  const Problem reversed = problem.reversed();
  for (const Way& way : ways_for(test_world().size())) {
    expect_same_bits(reversed, whole, way, backend);
  }
}

TEST(Engine, DoesNotDependOnTheCompanyOfARequest) {
  const std::vector<Problem::Lengths> lengths{{1, 500}, {1, 90}, {2, 333}, {1, 64}};
  std::mt19937_64 random(5);
  for (int round = 0; round < 5; ++round) {
    std::vector<Problem::Lengths> some;
    for (const auto& l : lengths) {
      if (random() % 2 == 0) some.push_back(l);
    }
    if (some.empty()) continue;
    expect_same_bits_everywhere(Problem(kShape, some, random()),
                                kernels::find_host_backend("auto"));
  }
}

TEST(Engine, HandsResultsOverWhileOthersAreStillToCome) {
  const Communicator& comm = test_world();
  const Problem problem(kShape, std::vector<Problem::Lengths>(40, {1, 64 * 12}), 7);
  const Partition partition =
      make_partition(problem.batch(), {.kind = ShardMode::Kind::kKv}, comm.size());
  int calls = 0;
  decode(comm, problem.batch(), partition, problem.inputs(partition.pieces_of(comm.rank())),
         kernels::find_host_backend("auto"), {}, [&](const std::vector<ResultSlice>& some) {
           EXPECT_FALSE(some.empty());
           ++calls;
         });
  EXPECT_GE(calls, 1);
  if (comm.size() == 1) {
    EXPECT_GT(calls, 4);
  }
}

/// Decodes all steps with one decoder; each must have the bits of a decoder of its own.
void expect_same_bits_in_all_steps(const Problem& problem, Growth growth,
                                   const std::vector<std::vector<ResultSlice>>& wholes,
                                   const Way& way, const kernels::Backend& backend) {
  SCOPED_TRACE(way.text());
  const Communicator& comm = test_world();
  std::vector<std::int64_t> requests(problem.batch().requests.size());
  std::iota(requests.begin(), requests.end(), std::int64_t{0});
  const GrowingPlan plan = make_growing_plan(problem.batch(), requests, growth,
                                             parse_shard_mode(way.mode, comm.size()), comm.size());
  const std::vector<Piece> held = held_pieces(problem.batch(), plan, comm.rank());
  GrowingSteps steps(problem.batch(), plan);
  Decoder decoder(comm, steps.sizes(), steps.partition(), {held, problem.inputs(held)}, backend,
                  settings_of(way));
  for (const std::vector<ResultSlice>& whole : wholes) {
    if (steps.advance() == GrowingSteps::Change::kNone) {
      decoder.follow_lengths();
    } else {
      decoder.follow_partition();
    }
    const auto slices = results_of([&](const OnResults& on_results) { decoder.run(on_results); });
    for (const ResultSlice& slice : slices) {
      EXPECT_EQ(slice, cut(whole, slice, problem.batch()));
    }
    expect_all_rows_once(problem, slices);
  }
}

TEST(Engine, GivesTheSameBitsInEveryStepOfAGrowingBatch) {
  const Problem problem(kShape, {{1, 700}, {9, 400}, {1, 0}, {30, 1300}, {2, 170}}, 10);
  const Growth growth{.steps = 40};
  const kernels::Backend& backend = kernels::find_host_backend("auto");
  Batch sizes = problem.batch();
  std::vector<std::vector<ResultSlice>> wholes;
  for (std::int64_t step = 0; step < growth.steps; ++step) {
    set_lengths(problem.batch(), growth, step, sizes);
    wholes.push_back(decode_on(Communicator::self(), problem, sizes, {}, backend));
  }
  for (const Way& way : ways_for(test_world().size())) {
    expect_same_bits_in_all_steps(problem, growth, wholes, way, backend);
  }
}

TEST(Engine, FastCombineRoundsLittle) {
  const Problem problem(kShape, {{1, 64 * 37 + 5}, {3, 64 * 10}}, 8);
  const kernels::Backend& backend = kernels::find_host_backend("auto");
  const auto whole = decode_on(Communicator::self(), problem, {}, backend);
  for (Way way : kExchanges) {
    way.exact = false;
    SCOPED_TRACE(way.text());
    for (const ResultSlice& slice : decode_on(test_world(), problem, way, backend)) {
      const ResultSlice exact = cut(whole, slice, problem.batch());
      // m and l travel as they are; they are merged in another order.
      for (std::size_t r = 0; r < slice.lse.size(); ++r) {
        ASSERT_NEAR(slice.lse[r], exact.lse[r], 1e-6);
      }
      for (std::size_t i = 0; i < slice.out.size(); i += sizeof(float)) {
        float fast = 0;
        float expected = 0;
        std::memcpy(&fast, slice.out.data() + i, sizeof fast);
        std::memcpy(&expected, exact.out.data() + i, sizeof expected);
        ASSERT_NEAR(fast, expected, 8e-4);
      }
    }
  }
}

}  // namespace
}  // namespace mla::dist
