#include <cmath>
#include <cstring>
#include <limits>
#include <span>

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tests/support/runner.h"

namespace mla::test {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();

class EdgeCases : public testing::TestWithParam<std::tuple<const kernels::HostBackend*, DType>> {
 protected:
  const kernels::HostBackend& backend() const { return *std::get<0>(GetParam()); }
  DType dtype() const { return std::get<1>(GetParam()); }

  void expect_within_tolerance(const Problem& problem) const {
    const kernels::Comparison comparison =
        compare_results(run_backend(backend(), problem), run_oracle(problem));
    EXPECT_TRUE(comparison.pass) << kernels::to_string(comparison);
  }
};

TEST_P(EdgeCases, ARequestOfLengthZeroGivesZerosAndInfinity) {
  const Problem problem({.shape = {3, 1, 80, 64}, .dtype = dtype(), .requests = {{2, 0}}});
  const Results results = run_backend(backend(), problem);
  for (const float x : results.out) EXPECT_EQ(x, 0);
  for (const float x : results.lse) EXPECT_EQ(x, kInf);
}

TEST_P(EdgeCases, LonelyQueriesSeeNothing) {
  const Problem problem({.shape = {2, 1, 80, 64}, .dtype = dtype(), .requests = {{5, 2}, {4, 1}}});
  const Results results = run_backend(backend(), problem);
  for (int row = 0; row < 6; ++row) {
    EXPECT_EQ(results.lse[row], kInf);
    for (int d = 0; d < 64; ++d) EXPECT_EQ(results.out[row * 64 + d], 0);
  }
  expect_within_tolerance(problem);
}

TEST_P(EdgeCases, ARowThatSeesNothingOfAChunkHasTheEmptyPartial) {
  // Chunk 1 holds keys 64..66; queries 0 and 1 see keys below 64 and 65.
  const Problem problem(
      {.shape = {2, 1, 80, 64}, .dtype = dtype(), .chunk_tokens = 64, .requests = {{4, 67}}});
  Nodes nodes = decode_nodes(backend(), problem.params(0, 0, {0, 8}), {1, 2});
  for (int row = 0; row < 2; ++row) {
    EXPECT_EQ(nodes[0].m_log2[row], -kInf);
    EXPECT_EQ(nodes[0].l[row], 0);
    for (int d = 0; d < 64; ++d) EXPECT_EQ(nodes[0].o[row * 64 + d], 0);
  }
  for (int row = 2; row < 8; ++row) EXPECT_TRUE(std::isfinite(nodes[0].m_log2[row]));
  expect_within_tolerance(problem);
}

TEST_P(EdgeCases, EveryLengthUpToTwoBlocksAndABit) {
  ProblemSpec spec{.shape = {5, 1, 80, 64},
                   .dtype = dtype(),
                   .page_block_size = 7,
                   .chunk_tokens = 128,
                   .requests = {}};
  for (std::int64_t length = 0; length <= 150; ++length) spec.requests.push_back({1, length});
  expect_within_tolerance(Problem(spec));
}

TEST_P(EdgeCases, EveryNumberOfRowsUpToThreeGroups) {
  for (const std::int64_t heads : {1, 2, 3, 4, 5, 6, 7, 8, 9, 15, 16, 17, 31, 32, 33, 47, 48, 49}) {
    expect_within_tolerance(
        Problem({.shape = {heads, 1, 80, 64}, .dtype = dtype(), .requests = {{1, 70}}}));
  }
}

TEST_P(EdgeCases, RowSizesThatAreNoMultipleOfATile) {
  struct Dims {
    std::int64_t d_qk;
    std::int64_t d_v;
  };
  for (const Dims d : {Dims{16, 16}, Dims{24, 16}, Dims{48, 48}, Dims{88, 80}, Dims{576, 512},
                       Dims{320, 256}, Dims{288, 256}, Dims{152, 112}}) {
    expect_within_tolerance(Problem({.shape = {19, 1, d.d_qk, d.d_v},
                                     .dtype = dtype(),
                                     .page_block_size = 16,
                                     .requests = {{2, 333}, {1, 65}}}));
  }
}

TEST_P(EdgeCases, SeveralKvHeads) {
  expect_within_tolerance(
      Problem({.shape = {24, 8, 80, 64}, .dtype = dtype(), .requests = {{3, 200}, {1, 700}}}));
}

TEST_P(EdgeCases, EqualScoresGiveTheMeanOfTheValues) {
  expect_within_tolerance(Problem(
      {.shape = {4, 1, 80, 64}, .dtype = dtype(), .requests = {{1, 1000}}, .q_magnitude = 0}));
}

// Scores of a few hundred: the softmax picks one key, all other weights underflow.
TEST_P(EdgeCases, PeakedScores) {
  expect_within_tolerance(Problem({.shape = {16, 1, 80, 64},
                                   .dtype = dtype(),
                                   .causal = false,
                                   .requests = {{1, 700}},
                                   .q_magnitude = 30,
                                   .kv_magnitude = 1}));
}

// Every key but one scores hugely negative, or that one hugely positive; powers of two, so that
// fp32 dot products are exact.
TEST_P(EdgeCases, ScoresThatRiseAndFallWithinAChunk) {
  // By up to 90 powers of two: those of odd heads rise, those of even heads fall.
  Problem problem(
      {.shape = {20, 1, 80, 64}, .dtype = dtype(), .chunk_tokens = 1024, .requests = {{1, 1000}}});
  constexpr std::int64_t kNoValue = 79;
  for (std::int64_t token = 0; token < 1000; ++token) {
    problem.mutable_kv_row(0, token, 0)[kNoValue] = to_bits(dtype(), 0.03 * double(token));
  }
  for (std::int64_t head = 0; head < 20; ++head) {
    const double slope = head % 2 == 1 ? double(head) : -double(head);
    problem.mutable_q_row(0, 0, head)[kNoValue] = to_bits(dtype(), slope);
  }
  expect_within_tolerance(problem);
}

TEST_P(EdgeCases, HugeScoresOfEitherSign) {
  for (const double size : {-4096.0, 4096.0}) {
    Problem problem(
        {.shape = {4, 1, 80, 64}, .dtype = dtype(), .chunk_tokens = 64, .requests = {{1, 300}}});
    for (std::int64_t head = 0; head < 4; ++head) {
      for (int d = 0; d < 80; ++d) problem.mutable_q_row(0, 0, head)[d] = to_bits(dtype(), size);
    }
    for (int t = 0; t < 300; ++t) {
      for (int d = 0; d < 80; ++d) {
        problem.mutable_kv_row(0, t, 0)[d] = to_bits(dtype(), t == 150 ? 2 : 1 + t % 2 * 0.5);
      }
    }
    expect_within_tolerance(problem);
  }
}

TEST_P(EdgeCases, NanInAKeyReachesTheRowsThatSeeItAndNoOthers) {
  Problem problem({.shape = {3, 1, 80, 64}, .dtype = dtype(), .requests = {{2, 100}}});
  problem.mutable_kv_row(0, 99, 0)[70] = 0x7fff;  // query 0 sees 99 keys, query 1 all
  const Results results = run_backend(backend(), problem);
  for (int head = 0; head < 3; ++head) {
    EXPECT_TRUE(std::isfinite(results.lse[head]));
    EXPECT_TRUE(std::isnan(results.lse[3 + head]));
    EXPECT_TRUE(std::isnan(results.out[(3 + head) * 64]));
  }
}

TEST_P(EdgeCases, NanInAnyKeyIsNeverSwallowed) {
  for (const int token : {0, 1, 50, 64, 98}) {
    Problem problem({.shape = {3, 1, 80, 64}, .dtype = dtype(), .requests = {{1, 100}}});
    problem.mutable_kv_row(0, token, 0)[70] = 0x7fff;
    const Results results = run_backend(backend(), problem);
    for (const float x : results.lse) EXPECT_TRUE(std::isnan(x)) << token;
    for (const float x : results.out) EXPECT_TRUE(std::isnan(x)) << token;
  }
}

TEST_P(EdgeCases, NanInAllKeysIsNotTakenForSeeingNone) {
  for (const std::int64_t context_len : {1, 5, 64, 65, 600}) {
    Problem problem({.shape = {3, 1, 80, 64}, .dtype = dtype(), .requests = {{1, context_len}}});
    for (std::int64_t token = 0; token < context_len; ++token) {
      problem.mutable_kv_row(0, token, 0)[70] = 0x7fff;
    }
    const Results results = run_backend(backend(), problem);
    for (const float x : results.lse) EXPECT_TRUE(std::isnan(x)) << context_len;
    for (const float x : results.out) EXPECT_TRUE(std::isnan(x)) << context_len;
  }
}

/// Memory that ends where the next read would crash.
class GuardedElements {
 public:
  explicit GuardedElements(std::span<const std::uint16_t> elements) {
    const std::size_t page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
    const std::size_t used = (elements.size_bytes() + page - 1) / page * page;
    bytes_ = used + page;
    base_ = static_cast<std::byte*>(
        mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    mprotect(base_ + used, page, PROT_NONE);
    data_ = reinterpret_cast<std::uint16_t*>(base_ + used - elements.size_bytes());
    std::memcpy(data_, elements.data(), elements.size_bytes());
  }
  ~GuardedElements() { munmap(base_, bytes_); }
  GuardedElements(const GuardedElements&) = delete;
  const std::uint16_t* data() const { return data_; }

 private:
  std::size_t bytes_;
  std::byte* base_;
  std::uint16_t* data_;
};

TEST_P(EdgeCases, NothingIsReadPastTheLastElement) {
  struct Dims {
    std::int64_t d_qk;
    std::int64_t d_v;
  };
  for (const Dims d : {Dims{16, 16}, Dims{48, 48}, Dims{88, 80}, Dims{576, 512}}) {
    for (const std::int64_t tokens : {1, 3, 64, 65}) {
      const std::vector<std::uint16_t> ones(tokens * d.d_qk, to_bits(dtype(), 1));
      const GuardedElements kv({ones.data(), ones.size()});
      const GuardedElements q({ones.data(), static_cast<std::size_t>(d.d_qk)});
      const std::vector<std::int32_t> table(tokens, 0);
      kernels::DecodeParams params;
      params.shape = {1, 1, d.d_qk, d.d_v};
      params.scale_log2 = 1;
      params.kv = {kv.data(), dtype(), tokens, tokens * d.d_qk, d.d_qk, d.d_qk};
      params.block_table = table.data();
      params.context_len = tokens;
      params.q = q.data();
      params.heads = 1;
      params.rows = {0, 1};
      Nodes nodes = decode_whole(backend(), params);
      EXPECT_FLOAT_EQ(nodes[0].l[0], static_cast<float>(tokens));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Backends, EdgeCases,
                         testing::Combine(testing::ValuesIn(usable_backends()),
                                          testing::Values(DType::kBf16, DType::kFp16)),
                         [](const auto& test) {
                           return test_name(*std::get<0>(test.param)) + "_" +
                                  std::string(name_of(std::get<1>(test.param)));
                         });

}  // namespace
}  // namespace mla::test
