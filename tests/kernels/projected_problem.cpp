#include "tests/kernels/projected_problem.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>

#include <gtest/gtest.h>

namespace mla::test {
namespace {

std::vector<std::uint16_t> random_elements(DType dtype, std::int64_t n, double magnitude,
                                           std::uint64_t seed) {
  std::mt19937_64 random(seed);
  std::normal_distribution<double> normal(0, magnitude);
  std::vector<std::uint16_t> elements(n);
  for (std::uint16_t& e : elements) e = to_bits(dtype, normal(random));
  return elements;
}

}  // namespace

ProjectedModel::ProjectedModel(const ProjectedSpec& spec)
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

kernels::HeadMatrices ProjectedModel::w_uk() const {
  return kernels::w_uk_of_kv_b_proj(weight_.data(), batch_.dtype, batch_.shape.h_q, dims().d_nope,
                                    dims().d_v_head, batch_.shape.d_v);
}

kernels::HeadMatrices ProjectedModel::w_uv() const {
  return kernels::w_uv_of_kv_b_proj(weight_.data(), batch_.dtype, batch_.shape.h_q, dims().d_nope,
                                    dims().d_v_head, batch_.shape.d_v);
}

kernels::ProjectedInputs ProjectedModel::inputs() const {
  const std::int64_t row = dims().d_nope + d_rope();
  const std::int64_t token = batch_.shape.h_q * row;
  return {.kv = problem_->params(0, 0, {0, 1}).kv,
          .block_tables = block_tables_,
          .queries = {queries_.data(), token, row, queries_.data() + dims().d_nope, token, row,
                      d_rope()}};
}

ProjectedModel ProjectedModel::only(Range requests) const {
  ProjectedModel part(*this);
  part.batch_.requests.assign(batch_.requests.begin() + requests.begin,
                              batch_.requests.begin() + requests.end);
  part.block_tables_.assign(block_tables_.begin() + requests.begin,
                            block_tables_.begin() + requests.end);
  const std::int64_t row = batch_.shape.h_q * (dims().d_nope + d_rope());
  part.queries_.erase(part.queries_.begin(),
                      part.queries_.begin() + problem_->q_offset(requests.begin) * row);
  return part;
}

Results run_fused(const ProjectedModel& model, const kernels::HostBackend& backend,
                  const kernels::ProjectedPlan& plan) {
  constexpr std::int64_t kCanaryBytes = 256;
  const kernels::PackedProjections weights(backend, model.w_uk(), model.w_uv());
  const std::int64_t rows = model.total_q() * model.batch().shape.h_q;
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

Results run_fused(const ProjectedModel& model, const kernels::HostBackend& backend, int threads) {
  return run_fused(model, backend,
                   kernels::make_projected_plan(model.batch(), model.dims(), threads));
}

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

}  // namespace mla::test
