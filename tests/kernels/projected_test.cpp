// The fused operator against its oracle and, to the bit, against its own steps.

#include <algorithm>
#include <cstring>
#include <limits>
#include <numbers>

#include <gtest/gtest.h>

#include "kernels/projected_decode.h"
#include "kernels/reference/projected_oracle.h"
#include "tests/kernels/projected_problem.h"

namespace mla::test {
namespace {

using kernels::ProjectedPlan;

ExactResults run_exactly(const ProjectedModel& model) {
  const std::int64_t rows = model.total_q() * model.batch().shape.h_q;
  ExactResults exact{std::vector<double>(rows * model.dims().d_v_head), std::vector<double>(rows)};
  kernels::projected_oracle(model.batch(), model.w_uk(), model.w_uv(), model.inputs(), exact.out,
                            exact.lse);
  return exact;
}

/// The root partial of all heads of request `r` (one KV head, at most 128 rows), of absorbed
/// queries `q` [total_q, h_q, d_qk].
Nodes decode_absorbed(const ProjectedModel& model, const kernels::HostBackend& backend,
                      std::int64_t r, const std::uint16_t* q) {
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
std::vector<std::uint16_t> absorb(const ProjectedModel& model,
                                  const kernels::PackedProjections& weights) {
  constexpr int kThreads = 3;
  const AlignedBytes workspace(kThreads * projection_scratch_bytes(weights));
  std::vector<std::uint16_t> q(model.total_q() * model.batch().shape.h_q *
                               model.batch().shape.d_qk);
  kernels::absorb_queries(weights, model.inputs().queries, model.total_q(), q.data(), kThreads,
                          workspace.span());
  return q;
}

/// Absorb, attend, project, one after the other with the intermediates in memory.
Results run_steps(const ProjectedModel& model, const kernels::HostBackend& backend) {
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

class Projected : public testing::TestWithParam<const kernels::HostBackend*> {
 protected:
  void expect_near_oracle(const ProjectedModel& model) const {
    const kernels::Comparison c =
        compare_results(run_fused(model, *GetParam()), run_exactly(model));
    EXPECT_TRUE(c.pass) << to_string(c);
  }
};

TEST_P(Projected, AgreesWithTheOracle) {
  for (const DType dtype : {DType::kBf16, DType::kFp16}) {
    expect_near_oracle(
        ProjectedModel({.attention = {.shape = {24, 1, 80, 64},
                                      .dtype = dtype,
                                      .chunk_tokens = 128,
                                      .requests = {{1, 300}, {2, 70}, {3, 1}, {1, 0}, {1, 1}}},
                        .dims = {32, 48}}));
  }
}

TEST_P(Projected, AgreesWithTheOracleForTheWidthsOfDeepSeek) {
  expect_near_oracle(
      ProjectedModel({.attention = {.shape = {3, 1, 576, 512}, .requests = {{2, 900}, {1, 64}}},
                      .dims = {128, 128}}));
}

TEST_P(Projected, RoundsToTheBatchsOutputType) {
  ProjectedModel model({.attention = {.shape = {4, 1, 80, 64}, .requests = {{1, 100}}}});
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
    const ProjectedModel model({.attention = {.shape = {20, 1, 80, 64},
                                              .dtype = dtype,
                                              .requests = {{1, 600}, {4, 30}, {2, 1}, {1, 0}}}});
    const Results fused = run_fused(model, *GetParam());
    const Results steps = run_steps(model, *GetParam());
    EXPECT_TRUE(same_bits(fused.out, steps.out));
    EXPECT_TRUE(same_bits(fused.lse, steps.lse));
  }
}

TEST_P(Projected, WritesZerosForQueriesThatSeeNoKey) {
  const ProjectedModel model(
      {.attention = {.shape = {2, 1, 80, 64}, .requests = {{3, 1}, {1, 0}}}});
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
  expect_near_oracle(
      ProjectedModel({.attention = {.shape = {6, 2, 80, 64}, .requests = {{2, 90}, {1, 200}}}}));
}

TEST_P(Projected, TakesPackedWeightsIntoTheCallersMemory) {
  const ProjectedModel model({.attention = {.shape = {5, 1, 80, 64}, .requests = {{1, 1}}}});
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
  const ProjectedModel model(
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
  const ProjectedModel model({.attention = {.shape = {7, 1, 80, 64}, .requests = {{3, 50}}}});
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

INSTANTIATE_TEST_SUITE_P(Backends, Projected, testing::ValuesIn(usable_backends()),
                         [](const auto& test) { return test_name(*test.param); });

}  // namespace
}  // namespace mla::test
