// The fused operator against its oracle, against its own steps (to the bit), and its plans.

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <numbers>
#include <random>

#include <gtest/gtest.h>

#include "kernels/projected_decode.h"
#include "kernels/reference/projected_oracle.h"
#include "tests/support/runner.h"

#ifdef MLA_HAVE_RAPIDCHECK
#include <rapidcheck.h>
#include <rapidcheck/gtest.h>
#endif

namespace mla::test {
namespace {

using kernels::ProjectedPlan;
using kernels::ProjectedTile;

struct Spec {
  ProblemSpec attention;
  kernels::ProjectionDims dims{32, 16};
};

std::vector<std::uint16_t> random_elements(DType dtype, std::int64_t n, double magnitude,
                                           std::uint64_t seed) {
  std::mt19937_64 random(seed);
  std::normal_distribution<double> normal(0, magnitude);
  std::vector<std::uint16_t> elements(n);
  for (std::uint16_t& e : elements) e = to_bits(dtype, normal(random));
  return elements;
}

/// A batch, its cache, its queries and kv_b_proj.weight, all random.
class Model {
 public:
  explicit Model(const Spec& spec)
      : spec_(spec), problem_(std::make_shared<const Problem>(spec.attention)) {
    const MlaShape& shape = spec.attention.shape;
    const auto [d_nope, d_v_head] = spec.dims;
    const DType dtype = spec.attention.dtype;
    batch_ = {.shape = shape,
              .dtype = dtype,
              .out_dtype = DType::kFp32,
              .page_block_size = spec.attention.page_block_size,
              .chunk_tokens = spec.attention.chunk_tokens,
              .causal = spec.attention.causal,
              .softmax_scale = 1 / std::sqrt(static_cast<double>(d_nope + d_rope())),
              .kv_cache = {},
              .requests = {}};
    for (std::int64_t r = 0; r < problem_->num_requests(); ++r) {
      const RequestSizes& sizes = spec.attention.requests[r];
      batch_.requests.push_back({.custom_id = std::to_string(r),
                                 .query_len = sizes.query_len,
                                 .context_len = sizes.context_len,
                                 .block_table = {},
                                 .q = {}});
      block_tables_.push_back(problem_->params(r, 0, {0, 1}).block_table);
    }
    const std::uint64_t seed = spec.attention.seed;
    weight_ = random_elements(dtype, shape.h_q * (d_nope + d_v_head) * shape.d_v,
                              1 / std::sqrt(static_cast<double>(shape.d_v)), seed + 1);
    queries_ = random_elements(dtype, total_q() * shape.h_q * (d_nope + d_rope()), 1, seed + 2);
  }

  const Batch& batch() const { return batch_; }
  const kernels::ProjectionDims& dims() const { return spec_.dims; }
  const Problem& problem() const { return *problem_; }
  std::int64_t total_q() const { return problem_->total_queries(); }
  std::int64_t d_rope() const { return spec_.attention.shape.d_qk - spec_.attention.shape.d_v; }

  kernels::HeadMatrices w_uk() const {
    return kernels::w_uk_of_kv_b_proj(weight_.data(), batch_.dtype, batch_.shape.h_q, dims().d_nope,
                                      dims().d_v_head, batch_.shape.d_v);
  }
  kernels::HeadMatrices w_uv() const {
    return kernels::w_uv_of_kv_b_proj(weight_.data(), batch_.dtype, batch_.shape.h_q, dims().d_nope,
                                      dims().d_v_head, batch_.shape.d_v);
  }

  /// Each query row is (nope, rope), as q_proj leaves it.
  kernels::ProjectedInputs inputs() const {
    const std::int64_t row = dims().d_nope + d_rope();
    const std::int64_t token = batch_.shape.h_q * row;
    return {.kv = problem_->params(0, 0, {0, 1}).kv,
            .block_tables = block_tables_,
            .queries = {queries_.data(), token, row, queries_.data() + dims().d_nope, token, row,
                        d_rope()}};
  }

  /// The requests `requests` alone.
  Model only(Range requests) const {
    Model part(*this);
    part.batch_.requests.assign(batch_.requests.begin() + requests.begin,
                                batch_.requests.begin() + requests.end);
    part.block_tables_.assign(block_tables_.begin() + requests.begin,
                              block_tables_.begin() + requests.end);
    const std::int64_t row = batch_.shape.h_q * (dims().d_nope + d_rope());
    part.queries_.erase(part.queries_.begin(),
                        part.queries_.begin() + problem_->q_offset(requests.begin) * row);
    return part;
  }

 private:
  Spec spec_;
  std::shared_ptr<const Problem> problem_;
  Batch batch_;
  std::vector<const std::int32_t*> block_tables_;
  std::vector<std::uint16_t> weight_;
  std::vector<std::uint16_t> queries_;
};

std::int64_t total_queries(const Batch& batch) {
  std::int64_t total = 0;
  for (const Request& r : batch.requests) total += r.query_len;
  return total;
}

/// Runs the fused operator in a workspace full of NaN with a canary behind it.
Results run_fused(const Model& model, const kernels::HostBackend& backend,
                  const ProjectedPlan& plan) {
  constexpr std::int64_t kCanaryBytes = 256;
  const kernels::PackedProjections weights(backend, model.w_uk(), model.w_uv());
  const std::int64_t rows = total_queries(model.batch()) * model.batch().shape.h_q;
  const float nan = std::numeric_limits<float>::quiet_NaN();
  Results results{std::vector<float>(rows * model.dims().d_v_head, nan),
                  std::vector<float>(rows, nan)};
  const std::int64_t bytes =
      kernels::projected_workspace_bytes(model.batch(), plan, weights, backend);
  const AlignedBytes workspace(bytes + kCanaryBytes);
  std::memset(workspace.data(), 0xff, bytes);
  std::memset(workspace.data() + bytes, 0xa5, kCanaryBytes);
  kernels::decode_projected(model.batch(), plan, weights, backend, model.inputs(),
                            {results.out.data(), results.lse.data()},
                            workspace.span().first(bytes));
  const auto canary = workspace.span().subspan(bytes);
  EXPECT_TRUE(
      std::all_of(canary.begin(), canary.end(), [](std::byte b) { return b == std::byte{0xa5}; }));
  return results;
}

Results run_fused(const Model& model, const kernels::HostBackend& backend, int threads = 2) {
  return run_fused(model, backend,
                   kernels::make_projected_plan(model.batch(), model.dims(), threads));
}

ExactResults run_exactly(const Model& model) {
  const std::int64_t rows = model.total_q() * model.batch().shape.h_q;
  ExactResults exact{std::vector<double>(rows * model.dims().d_v_head), std::vector<double>(rows)};
  kernels::projected_oracle(model.batch(), model.w_uk(), model.w_uv(), model.inputs(), exact.out,
                            exact.lse);
  return exact;
}

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

/// The root partial of all heads of request `r` (one KV head, at most 128 rows), of absorbed
/// queries `q` [total_q, h_q, d_qk].
Nodes decode_absorbed(const Model& model, const kernels::HostBackend& backend, std::int64_t r,
                      const std::uint16_t* q) {
  const std::int64_t d_qk = model.batch().shape.d_qk;
  const std::int64_t heads = model.batch().shape.h_q;
  kernels::DecodeParams params = model.problem().params(r, 0, {0, model.problem().rows(r)});
  params.scale_log2 = static_cast<float>(model.batch().softmax_scale * std::numbers::log2e);
  params.q = q + model.problem().q_offset(r) * heads * d_qk;
  params.q_token_stride = heads * d_qk;
  params.q_head_stride = d_qk;
  return decode_whole(backend, params);
}

/// All queries, absorbed on three threads: [total_q, h_q, d_qk].
std::vector<std::uint16_t> absorb(const Model& model, const kernels::PackedProjections& weights) {
  constexpr int kThreads = 3;
  const AlignedBytes workspace(kThreads * projection_scratch_bytes(weights));
  std::vector<std::uint16_t> q(model.total_q() * model.batch().shape.h_q *
                               model.batch().shape.d_qk);
  kernels::absorb_queries(weights, model.inputs().queries, model.total_q(), q.data(), kThreads,
                          workspace.span());
  return q;
}

/// Absorb, attend, project, one after the other with the intermediates in memory.
Results run_steps(const Model& model, const kernels::HostBackend& backend) {
  constexpr int kThreads = 2;
  const kernels::PackedProjections weights(backend, model.w_uk(), model.w_uv());
  const auto [h_q, h_kv, d_qk, d_v] = model.batch().shape;
  const std::vector<std::uint16_t> q = absorb(model, weights);
  std::vector<std::uint16_t> o(model.total_q() * h_q * d_v);
  const std::int64_t d_v_head = model.dims().d_v_head;
  Results results{std::vector<float>(model.total_q() * h_q * d_v_head),
                  std::vector<float>(model.total_q() * h_q)};
  for (std::int64_t r = 0; r < model.problem().num_requests(); ++r) {
    Nodes nodes = decode_absorbed(model, backend, r, q.data());
    const std::int64_t first = model.problem().q_offset(r) * h_q;
    weights.kernel().normalise(nodes[0], &o[first * d_v], d_v);
    for (std::int64_t i = 0; i < nodes.rows; ++i) {
      results.lse[first + i] = finalize_lse(nodes[0], i);
    }
  }
  const AlignedBytes workspace(kThreads * projection_scratch_bytes(weights));
  kernels::project_values(weights, model.total_q(), {o.data(), model.batch().dtype, h_q * d_v, d_v},
                          {results.out.data(), DType::kFp32, h_q * d_v_head, d_v_head}, kThreads,
                          workspace.span());
  return results;
}

class Projected : public testing::TestWithParam<const kernels::HostBackend*> {};

TEST_P(Projected, AgreesWithTheOracle) {
  for (const DType dtype : {DType::kBf16, DType::kFp16}) {
    const Model model({.attention = {.shape = {24, 1, 80, 64},
                                     .dtype = dtype,
                                     .chunk_tokens = 128,
                                     .requests = {{1, 300}, {2, 70}, {3, 1}, {1, 0}, {1, 1}}},
                       .dims = {32, 48}});
    const kernels::Comparison c =
        compare_results(run_fused(model, *GetParam()), run_exactly(model));
    EXPECT_TRUE(c.pass) << to_string(c);
  }
}

TEST_P(Projected, AgreesWithTheOracleForTheWidthsOfDeepSeek) {
  const Model model({.attention = {.shape = {3, 1, 576, 512}, .requests = {{2, 900}, {1, 64}}},
                     .dims = {128, 128}});
  const kernels::Comparison c = compare_results(run_fused(model, *GetParam()), run_exactly(model));
  EXPECT_TRUE(c.pass) << to_string(c);
}

TEST_P(Projected, RoundsToTheBatchsOutputType) {
  Model model({.attention = {.shape = {4, 1, 80, 64}, .requests = {{1, 100}}}});
  const Results exact = run_fused(model, *GetParam());
  Batch batch = model.batch();
  batch.out_dtype = batch.dtype;
  const ProjectedPlan plan = kernels::make_projected_plan(batch, model.dims(), 1);
  const kernels::PackedProjections weights(*GetParam(), model.w_uk(), model.w_uv());
  const AlignedBytes workspace(
      kernels::projected_workspace_bytes(batch, plan, weights, *GetParam()));
  std::vector<std::uint16_t> out(exact.out.size());
  std::vector<float> lse(exact.lse.size());
  kernels::decode_projected(batch, plan, weights, *GetParam(), model.inputs(),
                            {out.data(), lse.data()}, workspace.span());
  for (std::size_t i = 0; i < out.size(); ++i) EXPECT_EQ(out[i], to_bf16(exact.out[i]).bits);
}

TEST_P(Projected, GivesTheBitsOfItsStepsOneAfterTheOther) {
  for (const DType dtype : {DType::kBf16, DType::kFp16}) {
    const Model model({.attention = {.shape = {20, 1, 80, 64},
                                     .dtype = dtype,
                                     .requests = {{1, 600}, {4, 30}, {2, 1}, {1, 0}}}});
    const Results fused = run_fused(model, *GetParam());
    const Results steps = run_steps(model, *GetParam());
    EXPECT_TRUE(same_bits(fused.out, steps.out));
    EXPECT_TRUE(same_bits(fused.lse, steps.lse));
  }
}

TEST_P(Projected, WritesZerosForQueriesThatSeeNoKey) {
  const Model model({.attention = {.shape = {2, 1, 80, 64}, .requests = {{3, 1}, {1, 0}}}});
  const Results results = run_fused(model, *GetParam());
  const std::int64_t d = model.dims().d_v_head;
  for (const std::int64_t token : {0, 1, 3}) {
    for (std::int64_t row = 2 * token; row < 2 * token + 2; ++row) {
      EXPECT_EQ(results.lse[row], std::numeric_limits<float>::infinity());
      for (std::int64_t i = 0; i < d; ++i) EXPECT_EQ(results.out[row * d + i], 0.0F);
    }
  }
}

TEST_P(Projected, KeepsKvHeadsApart) {
  const Model model({.attention = {.shape = {6, 2, 80, 64}, .requests = {{2, 90}, {1, 200}}}});
  const kernels::Comparison c = compare_results(run_fused(model, *GetParam()), run_exactly(model));
  EXPECT_TRUE(c.pass) << to_string(c);
}

TEST_P(Projected, TakesPackedWeightsIntoTheCallersMemory) {
  const Model model({.attention = {.shape = {5, 1, 80, 64}, .requests = {{1, 1}}}});
  const std::int64_t bytes =
      kernels::PackedProjections::packed_bytes(*GetParam(), model.w_uk(), model.w_uv());
  const AlignedBytes memory(bytes);
  const kernels::PackedProjections taken(*GetParam(), model.w_uk(), model.w_uv(), memory.span());
  const kernels::PackedProjections owned(*GetParam(), model.w_uk(), model.w_uv());
  EXPECT_EQ(taken.w_uk({0, 1}).data(), memory.data());
  const auto same = [](std::span<const std::byte> a, std::span<const std::byte> b) {
    return std::equal(a.begin(), a.end(), b.begin(), b.end());
  };
  EXPECT_TRUE(same(taken.w_uk({0, 5}), owned.w_uk({0, 5})));
  EXPECT_TRUE(same(taken.w_uv({0, 5}), owned.w_uv({0, 5})));
}

/// o of a partial over its l, in fp32.
std::vector<float> finished(const PartialView& partial) {
  std::vector<float> out(partial.rows * partial.d_v);
  for (std::int64_t row = 0; row < partial.rows; ++row) {
    finalize_out(partial, row, {0, partial.d_v}, &out[row * partial.d_v]);
  }
  return out;
}

/// Chunks [0, cut) and [cut, end) apart, each projected, then merged.
TEST_P(Projected, PartialsMergeAfterTheirProjectionToo) {
  const Model model(
      {.attention = {.shape = {7, 1, 80, 64}, .chunk_tokens = 64, .requests = {{3, 200}}}});
  const kernels::PackedProjections weights(*GetParam(), model.w_uk(), model.w_uv());
  const std::vector<std::uint16_t> q = absorb(model, weights);
  const AlignedBytes scratch(projection_scratch_bytes(weights));
  kernels::DecodeParams params = model.problem().params(0, 0, {0, 21});
  params.q = q.data();
  params.q_token_stride = 7 * 80;
  params.q_head_stride = 80;
  const std::int64_t d_v_head = model.dims().d_v_head;
  const auto projected = [&](Nodes nodes) {
    Nodes result{nodes.rows, d_v_head, 1, std::vector<float>(partial_floats(nodes.rows, d_v_head))};
    kernels::project_partial(weights, {0, 7}, {0, 21}, nodes[0], result[0], scratch.span());
    return result;
  };
  Nodes merged = projected(decode_nodes(*GetParam(), params, {0, 2}));
  Nodes right = projected(decode_nodes(*GetParam(), params, {2, 4}));
  merge_partials(merged[0], right[0]);

  Nodes whole = decode_whole(*GetParam(), params);
  std::vector<double> exact(21 * d_v_head);
  for (std::int64_t row = 0; row < 21; ++row) {
    std::vector<double> o(64);
    for (std::int64_t d = 0; d < 64; ++d) {
      o[d] = static_cast<double>(whole[0].o[row * 64 + d] / whole[0].l[row]);
    }
    kernels::multiply_exactly(model.w_uv(), row % 7, o.data(), &exact[row * d_v_head]);
  }
  const kernels::Comparison c = kernels::compare(finished(merged[0]), {}, exact, {});
  EXPECT_TRUE(c.pass) << to_string(c);
}

TEST_P(Projected, PartialsOfSomeRowsProjectToTheSameBits) {
  const Model model({.attention = {.shape = {7, 1, 80, 64}, .requests = {{3, 50}}}});
  const kernels::PackedProjections weights(*GetParam(), model.w_uk(), model.w_uv());
  const AlignedBytes scratch(projection_scratch_bytes(weights));
  Nodes whole = decode_whole(*GetParam(), model.problem().params(0, 0, {0, 21}));
  const std::int64_t d = model.dims().d_v_head;
  Nodes all{21, d, 1, std::vector<float>(partial_floats(21, d))};
  kernels::project_partial(weights, {0, 7}, {0, 21}, whole[0], all[0], scratch.span());
  for (const Range rows : {Range{0, 3}, Range{5, 16}, Range{20, 21}}) {
    Nodes some{rows.size(), d, 1, std::vector<float>(partial_floats(rows.size(), d))};
    const PartialView from{whole[0].m_log2 + rows.begin, whole[0].l + rows.begin,
                           whole[0].o + rows.begin * 64, rows.size(), 64};
    kernels::project_partial(weights, {0, 7}, rows, from, some[0], scratch.span());
    EXPECT_EQ(std::memcmp(some[0].o, all[0].o + rows.begin * d, rows.size() * d * 4), 0);
    EXPECT_EQ(std::memcmp(some[0].l, all[0].l + rows.begin, rows.size() * 4), 0);
  }
}

TEST_P(Projected, BitsOfDeepSeekShapesDoNotDependOnPlans) {
  const Model model({.attention = {.shape = {64, 1, 576, 512}, .requests = {{1, 600}, {3, 70}}},
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

#ifdef MLA_HAVE_RAPIDCHECK

Spec any_spec() {
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

TEST_P(Projected, BitsDependOnNeitherThePlanNorTheBatch) {
  EXPECT_TRUE(rc::check([&] {
    const Model model(any_spec());
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
    std::vector<int> covered(total_queries(batch) * batch.shape.h_q, 0);
    for (const ProjectedTile& tile : plan.tiles) {
      std::int64_t queries = 0;
      for (std::int64_t p = tile.parts.begin; p < tile.parts.end; ++p) {
        const kernels::ProjectedPart& part = plan.parts[p];
        std::int64_t first = 0;
        for (std::int64_t r = 0; r < part.request; ++r) first += batch.requests[r].query_len;
        RC_ASSERT(first + part.queries.begin == tile.tokens.begin + queries);
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

INSTANTIATE_TEST_SUITE_P(Backends, Projected, testing::ValuesIn(usable_backends()),
                         [](const auto& test) { return test_name(*test.param); });

}  // namespace
}  // namespace mla::test
