// The law of canonical chunks: a result depends on nothing but the keys and the query row, to the
// bit, on each backend.

#include <cstring>
#include <thread>

#include <gtest/gtest.h>

#include "core/chunk_tree.h"
#include "tests/support/runner.h"

#ifdef MLA_HAVE_RAPIDCHECK
#include <rapidcheck.h>
#include <rapidcheck/gtest.h>
#endif

namespace mla::test {
namespace {

bool same_row(const PartialView& a, std::int64_t row_a, const PartialView& b, std::int64_t row_b) {
  const auto same = [](const float* x, const float* y, std::int64_t n) {
    return std::memcmp(x, y, n * sizeof(float)) == 0;
  };
  return same(a.m_log2 + row_a, b.m_log2 + row_b, 1) && same(a.l + row_a, b.l + row_b, 1) &&
         same(a.o + row_a * a.d_v, b.o + row_b * b.d_v, a.d_v);
}

/// Row i of `part` is row first + i of `whole`.
bool same_rows(const PartialView& part, const PartialView& whole, std::int64_t first) {
  for (std::int64_t i = 0; i < part.rows; ++i) {
    if (!same_row(part, i, whole, first + i)) return false;
  }
  return true;
}

#ifdef MLA_HAVE_RAPIDCHECK
/// Decodes the pieces [cuts[i], cuts[i + 1]) apart and folds their nodes along the tree.
Nodes decode_in_pieces(const kernels::HostBackend& backend, const kernels::DecodeParams& params,
                       const std::vector<std::int64_t>& cuts) {
  const std::int64_t rows = params.rows.size();
  const std::int64_t floats = partial_floats(rows, params.shape.d_v);
  Nodes stack{rows, params.shape.d_v, 1,
              std::vector<float>(max_fold_depth(params.num_chunks()) * floats)};
  TreeFold fold(params.num_chunks());
  for (std::size_t i = 0; i + 1 < cuts.size(); ++i) {
    const Range piece{cuts[i], cuts[i + 1]};
    Nodes nodes = decode_nodes(backend, params, piece);
    std::int64_t n = 0;
    for (const TreeNode node : maximal_nodes(piece, params.num_chunks())) {
      std::copy_n(nodes.floats.data() + n++ * floats, floats,
                  stack.floats.data() + fold.size() * floats);
      fold.push(node);
      while (fold.combine()) merge_partials(stack[fold.size() - 1], stack[fold.size()]);
    }
  }
  return stack;
}
#endif

class ChunkLaw : public testing::TestWithParam<const kernels::HostBackend*> {};

TEST_P(ChunkLaw, RowsOfDeepSeekShapesDoNotDependOnTheirCompany) {
  for (const DType dtype : {DType::kBf16, DType::kFp16}) {
    const Problem problem({.shape = {64, 1, 576, 512}, .dtype = dtype, .requests = {{2, 700}}});
    Nodes whole = decode_whole(*GetParam(), problem.params(0, 0, {0, 128}));
    for (const Range rows : {Range{0, 1}, Range{5, 12}, Range{17, 33}, Range{100, 128}}) {
      Nodes part = decode_whole(*GetParam(), problem.params(0, 0, rows));
      EXPECT_TRUE(same_rows(part[0], whole[0], rows.begin)) << rows.begin << ".." << rows.end;
    }
  }
}

TEST_P(ChunkLaw, LeavingOutZerosOfQueriesChangesNoBit) {
  for (const DType dtype : {DType::kBf16, DType::kFp16}) {
    const Problem problem({.shape = {9, 1, 152, 80}, .dtype = dtype, .requests = {{2, 700}}});
    kernels::DecodeParams params = problem.params(0, 0, {0, 18});
    for (const std::int64_t zeros : {6, 16, 80, 100}) {
      std::vector<std::uint16_t> q(18 * 152);
      for (std::int64_t row = 0; row < 18; ++row) {
        const std::uint16_t* const from = problem.params(0, 0, {0, 18}).q_row(row);
        std::copy(from + zeros, from + 152, q.begin() + row * 152 + zeros);
      }
      params.q = q.data();
      params.q_token_stride = 9 * 152;
      params.q_head_stride = 152;
      params.q_zeros = 0;
      Nodes multiplied = decode_whole(*GetParam(), params);
      params.q_zeros = zeros;
      Nodes left_out = decode_whole(*GetParam(), params);
      EXPECT_TRUE(same_rows(left_out[0], multiplied[0], 0)) << zeros;
    }
  }
}

/// Hands chunks out one at a time.
class OneByOne final : public kernels::ChunkSupply {
 public:
  OneByOne(std::int64_t end, float* other_nodes) : end_(end), other_nodes_(other_nodes) {}
  std::int64_t extend(std::int64_t end) noexcept override { return end < end_ ? end + 1 : end; }
  std::int64_t furthest() const noexcept override { return end_; }
  float* other_nodes() const noexcept override { return other_nodes_; }

 private:
  std::int64_t end_;
  float* other_nodes_;
};

TEST_P(ChunkLaw, ChunksHandedOutLaterChangeNoBit) {
  const Problem problem({.shape = {16, 1, 80, 64}, .chunk_tokens = 64, .requests = {{1, 700}}});
  kernels::DecodeParams params = problem.params(0, 0, {0, 16});
  const std::int64_t floats = partial_floats(16, 64);
  for (const Range chunks : {Range{0, 8}, Range{1, 8}, Range{3, 10}, Range{5, 11}}) {
    params.more = nullptr;
    Nodes at_once = decode_nodes(*GetParam(), params, chunks);
    std::vector<float> other_nodes(max_fold_depth(params.num_chunks()) * floats);
    OneByOne supply(chunks.end, other_nodes.data());
    params.more = &supply;
    Nodes first = decode_nodes(*GetParam(), params, {chunks.begin, chunks.begin + 1});
    EXPECT_TRUE(same_rows(first[0], at_once[0], 0));
    for (std::int64_t i = 1; i < at_once.count; ++i) {
      EXPECT_TRUE(
          same_rows(partial_at(other_nodes.data() + (i - 1) * floats, 16, 64), at_once[i], 0))
          << chunks.begin << ".." << chunks.end;
    }
  }
}

TEST_P(ChunkLaw, ThreadsAtOnceGiveTheSameBits) {
  const Problem problem({.shape = {16, 1, 80, 64}, .requests = {{1, 5000}}});
  const kernels::DecodeParams params = problem.params(0, 0, {0, 16});
  Nodes alone = decode_whole(*GetParam(), params);
  std::vector<Nodes> results(4);
  std::vector<std::thread> threads;
  for (Nodes& result : results) {
    threads.emplace_back([&, backend = GetParam()] { result = decode_whole(*backend, params); });
  }
  for (std::thread& thread : threads) thread.join();
  for (Nodes& result : results) EXPECT_TRUE(same_rows(result[0], alone[0], 0));
}

#ifdef MLA_HAVE_RAPIDCHECK

/// One request of random sizes, small enough for a hundred runs.
ProblemSpec any_problem() {
  struct Dims {
    std::int64_t d_qk;
    std::int64_t d_v;
  };
  const Dims dims =
      *rc::gen::element(Dims{80, 64}, Dims{88, 80}, Dims{48, 48}, Dims{56, 16}, Dims{96, 64});
  const auto heads = *rc::gen::inRange<std::int64_t>(1, 20);
  const auto query_len = *rc::gen::inRange<std::int64_t>(1, 4);
  const auto context_len = *rc::gen::inRange<std::int64_t>(1, 900);
  return {.shape = {heads, 1, dims.d_qk, dims.d_v},
          .dtype = *rc::gen::element(DType::kBf16, DType::kFp16),
          .page_block_size = *rc::gen::element<std::int64_t>(1, 7, 16, 64, 100),
          .chunk_tokens = *rc::gen::element<std::int64_t>(64, 128, 192),
          .causal = *rc::gen::arbitrary<bool>(),
          .requests = {{query_len, context_len}},
          .seed = *rc::gen::inRange<std::uint64_t>(1, 1000000),
          .q_magnitude = *rc::gen::element(0.0, 1.0, 10.0),
          .kv_magnitude = 1};
}

Range any_part(std::int64_t size) {
  const auto begin = *rc::gen::inRange<std::int64_t>(0, size);
  return {begin, *rc::gen::inRange<std::int64_t>(begin + 1, size + 1)};
}

TEST_P(ChunkLaw, AnyRowsAlone) {
  EXPECT_TRUE(rc::check([&] {
    const Problem problem(any_problem());
    const std::int64_t rows = problem.rows(0);
    const Range part = any_part(rows);
    Nodes whole = decode_whole(*GetParam(), problem.params(0, 0, {0, rows}));
    Nodes some = decode_whole(*GetParam(), problem.params(0, 0, part));
    RC_ASSERT(same_rows(some[0], whole[0], part.begin));
  }));
}

TEST_P(ChunkLaw, AnyHeadsAlone) {
  EXPECT_TRUE(rc::check([&] {
    const Problem problem(any_problem());
    const std::int64_t all = problem.spec().shape.h_q;
    const Range heads = any_part(all);
    Nodes whole = decode_whole(*GetParam(), problem.params(0, 0, {0, problem.rows(0)}));
    Nodes some = decode_whole(*GetParam(), problem.params_of_heads(0, 0, heads));
    for (std::int64_t i = 0; i < some.rows; ++i) {
      const std::int64_t row = i / heads.size() * all + heads.begin + i % heads.size();
      RC_ASSERT(same_row(some[0], i, whole[0], row));
    }
  }));
}

TEST_P(ChunkLaw, AnyPageSizeAndStrides) {
  EXPECT_TRUE(rc::check([&] {
    const Problem problem(any_problem());
    const Problem other = problem.relaid(*rc::gen::inRange<std::int64_t>(1, 130),
                                         *rc::gen::element<std::int64_t>(0, 1, 8, 40),
                                         *rc::gen::element<std::int64_t>(0, 3, 16));
    const Range rows{0, problem.rows(0)};
    Nodes a = decode_whole(*GetParam(), problem.params(0, 0, rows));
    Nodes b = decode_whole(*GetParam(), other.params(0, 0, rows));
    RC_ASSERT(same_rows(a[0], b[0], 0));
  }));
}

TEST_P(ChunkLaw, AnySplitOfTheChunksFoldedAlongTheTree) {
  EXPECT_TRUE(rc::check([&] {
    const Problem problem(any_problem());
    const kernels::DecodeParams params = problem.params(0, 0, {0, problem.rows(0)});
    std::vector<std::int64_t> cuts{0};
    while (cuts.back() < params.num_chunks()) {
      cuts.push_back(*rc::gen::inRange(cuts.back() + 1, params.num_chunks() + 1));
    }
    Nodes whole = decode_whole(*GetParam(), params);
    Nodes pieces = decode_in_pieces(*GetParam(), params, cuts);
    RC_ASSERT(same_rows(pieces[0], whole[0], 0));
  }));
}

#endif

INSTANTIATE_TEST_SUITE_P(Backends, ChunkLaw, testing::ValuesIn(usable_backends()),
                         [](const auto& test) { return test_name(*test.param); });

}  // namespace
}  // namespace mla::test
