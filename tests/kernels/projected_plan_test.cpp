// Plans of the fused operator, on which no bit of its results depends.

#include <algorithm>
#include <cstring>

#include <gtest/gtest.h>

#include "kernels/projected_decode.h"
#include "tests/kernels/projected_problem.h"

#ifdef MLA_HAVE_RAPIDCHECK
#include <rapidcheck.h>
#include <rapidcheck/gtest.h>
#endif

namespace mla::test {
namespace {

using kernels::ProjectedPlan;
using kernels::ProjectedTile;

class ProjectedBits : public testing::TestWithParam<const kernels::HostBackend*> {};

TEST_P(ProjectedBits, OfDeepSeekShapesDoNotDependOnPlans) {
  const ProjectedModel model(
      {.attention = {.shape = {64, 1, 576, 512}, .requests = {{1, 600}, {3, 70}}},
       .dims = {128, 128}});
  const auto plan = [&](int head_parts, int token_parts, std::int64_t tile_heads) {
    return kernels::make_projected_plan(model.batch(), model.dims(), head_parts, token_parts,
                                        tile_heads);
  };
  const Results one = run_fused(model, *GetParam(), plan(1, 1, 128));
  for (const auto& other : {plan(2, 1, 32), plan(1, 2, 20), plan(3, 2, 7)}) {
    const Results results = run_fused(model, *GetParam(), other);
    EXPECT_TRUE(same_bits(results.out, one.out)) << to_string(other);
    EXPECT_TRUE(same_bits(results.lse, one.lse)) << to_string(other);
  }
}

/// Some requests in one tile, whose last call threads share.
TEST_P(ProjectedBits, OfACutCallDoNotDependOnWhoComputesIt) {
  const ProjectedModel model({.attention = {.shape = {16, 1, 80, 64},
                                            .chunk_tokens = 64,
                                            .requests = {{1, 70}, {1, 300}, {1, 1}, {2, 1100}}}});
  const Results one = run_fused(model, *GetParam(), 1);
  for (const int threads : {2, 2, 3, 4}) {
    const Results results = run_fused(model, *GetParam(), threads);
    EXPECT_TRUE(same_bits(results.out, one.out)) << threads;
    EXPECT_TRUE(same_bits(results.lse, one.lse)) << threads;
  }
}

TEST(CallSegments, AreNodesOfTheTreeFromEndToEnd) {
  for (std::int64_t num_chunks = 1; num_chunks < 3000; ++num_chunks) {
    const kernels::CallSegments segments = kernels::halving_segments(num_chunks);
    ASSERT_LE(segments.count, kernels::CallSegments::kMost);
    EXPECT_EQ(segments.offsets[0], 0);
    EXPECT_EQ(segments.offsets[segments.count], num_chunks);
    for (std::int64_t i = 0; i < segments.count; ++i) {
      EXPECT_EQ(count_maximal_nodes(segments[i], num_chunks), 1) << i << " of " << num_chunks;
      EXPECT_LE(segments[i].size(), std::max<std::int64_t>(1, num_chunks / 2));
    }
  }
}

#ifdef MLA_HAVE_RAPIDCHECK

ProjectedSpec any_spec() {
  const auto heads = *rc::gen::inRange<std::int64_t>(1, 20);
  std::vector<RequestSizes> requests;
  const auto count = *rc::gen::inRange(1, 5);
  for (int i = 0; i < count; ++i) {
    requests.push_back(
        {*rc::gen::inRange<std::int64_t>(1, 12), *rc::gen::inRange<std::int64_t>(0, 200)});
  }
  return {
      .attention = {.shape = {heads, 1, 80, 64},
                    .dtype = *rc::gen::element(DType::kBf16, DType::kFp16),
                    .chunk_tokens = 64,
                    .causal = *rc::gen::arbitrary<bool>(),
                    .requests = requests,
                    .seed = *rc::gen::inRange<std::uint64_t>(1, 1000000)},
      .dims = {*rc::gen::element<std::int64_t>(16, 48), *rc::gen::element<std::int64_t>(16, 48)}};
}

TEST_P(ProjectedBits, DependOnNeitherThePlanNorTheBatch) {
  EXPECT_TRUE(rc::check([&] {
    const ProjectedModel model(any_spec());
    const Results all = run_fused(model, *GetParam(), 1);

    const ProjectedPlan plan = kernels::make_projected_plan(
        model.batch(), model.dims(), *rc::gen::inRange(1, 4), *rc::gen::inRange(1, 4),
        *rc::gen::inRange<std::int64_t>(1, 20));
    const Results other = run_fused(model, *GetParam(), plan);
    RC_ASSERT(same_bits(all.out, other.out));
    RC_ASSERT(same_bits(all.lse, other.lse));

    const std::int64_t request = *rc::gen::inRange<std::int64_t>(0, model.problem().num_requests());
    const Results alone = run_fused(model.only({request, request + 1}), *GetParam());
    const std::int64_t first = model.problem().q_offset(request) * model.batch().shape.h_q;
    RC_ASSERT(std::memcmp(&all.out[first * model.dims().d_v_head], alone.out.data(),
                          alone.out.size() * 4) == 0);
    RC_ASSERT(std::memcmp(&all.lse[first], alone.lse.data(), alone.lse.size() * 4) == 0);
  }));
}

TEST(ProjectedPlan, CoversEveryTokenAndHeadOnce) {
  EXPECT_TRUE(rc::check([&] {
    Batch batch{.shape = {*rc::gen::inRange<std::int64_t>(1, 200), 1, 576, 512},
                .kv_cache = {},
                .requests = {}};
    const auto count = *rc::gen::inRange(1, 40);
    for (int i = 0; i < count; ++i) {
      batch.requests.push_back({.custom_id = {},
                                .query_len = *rc::gen::inRange<std::int64_t>(1, 100),
                                .context_len = *rc::gen::inRange<std::int64_t>(0, 5000),
                                .block_table = {},
                                .q = {}});
    }
    const int threads = *rc::gen::inRange(1, 9);
    const ProjectedPlan plan = kernels::make_projected_plan(batch, {128, 128}, threads);
    RC_ASSERT(plan.threads() == threads);
    RC_ASSERT(plan.thread_offsets.back() == static_cast<std::int64_t>(plan.tiles.size()));
    const std::vector<std::int64_t> offsets = query_offsets(batch);
    std::vector<int> covered(offsets.back() * batch.shape.h_q, 0);
    for (const ProjectedTile& tile : plan.tiles) {
      std::int64_t queries = 0;
      for (std::int64_t p = tile.parts.begin; p < tile.parts.end; ++p) {
        const kernels::ProjectedPart& part = plan.parts[p];
        RC_ASSERT(offsets[part.request] + part.queries.begin == tile.tokens.begin + queries);
        queries += part.queries.size();
      }
      RC_ASSERT(queries == tile.tokens.size());
      for (std::int64_t t = tile.tokens.begin; t < tile.tokens.end; ++t) {
        for (std::int64_t h = tile.heads.begin; h < tile.heads.end; ++h) {
          ++covered[t * batch.shape.h_q + h];
        }
      }
    }
    RC_ASSERT(std::all_of(covered.begin(), covered.end(), [](int n) { return n == 1; }));
  }));
}

#endif

INSTANTIATE_TEST_SUITE_P(Backends, ProjectedBits, testing::ValuesIn(usable_backends()),
                         [](const auto& test) { return test_name(*test.param); });

}  // namespace
}  // namespace mla::test
