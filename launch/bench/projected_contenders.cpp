#include "launch/bench/projected_contenders.h"

#include <algorithm>

namespace mla::launch::bench {
namespace {

constexpr std::int64_t kElementBytes = 2;

std::size_t result_rows(const ProjectedLayer& layer) {
  return static_cast<std::size_t>(layer.total_q() * layer.point().heads);
}

}  // namespace

ProjectedContender::ProjectedContender(ProjectedLayer& layer)
    : layer_(layer),
      turn_(layer.next_turn()),
      out_(result_rows(layer) * static_cast<std::size_t>(layer.point().d_v_head)) {}

void ProjectedContender::prepare() {
  turn_ = layer_.next_turn();
  poison(out_.data(), kElementBytes * std::ssize(out_.span()));
}

kernels::Comparison ProjectedContender::check() const {
  return layer_.check(turn_, [this](std::int64_t request, std::int64_t row) {
    const Point& point = layer_.point();
    const std::int64_t place = request * point.rows() + row;
    return RowResult{.out = read_elements(out_.data(), point.dtype, place, point.d_v_head),
                     .lse = lse(request, row)};
  });
}

FusedContender::FusedContender(ProjectedLayer& layer)
    : ProjectedContender(layer),
      plan_(kernels::make_projected_plan(layer.batch(), layer.dims(), threads())),
      workspace_(static_cast<std::size_t>(kernels::projected_workspace_bytes(
          layer.batch(), plan_, *turn().weights, layer.backend()))),
      lse_(result_rows(layer)) {}

std::string FusedContender::name() const {
  return std::string(layer().backend().name()) + " fused";
}

void FusedContender::prepare() {
  ProjectedContender::prepare();
  poison(lse_.data(), 4 * std::ssize(lse_.span()));
}

float FusedContender::lse(std::int64_t request, std::int64_t row) const {
  return lse_.data()[request * layer().point().rows() + row];
}

void FusedContender::run() {
  kernels::decode_projected(layer().batch(), plan_, *turn().weights, layer().backend(),
                            {layer().kv(), turn().block_tables, layer().queries()},
                            {out(), lse_.data()}, workspace_.span());
}

StepsContender::StepsContender(ProjectedLayer& layer)
    : ProjectedContender(layer),
      partition_(make_partition(layer.batch(), {ShardMode::Kind::kBatch}, 1)),
      plan_(make_split_plan(layer.batch(), partition_.pieces_of(0), threads())),
      results_(layer.batch(), partition_, 0),
      decoder_(layer.batch(), plan_, layer.backend()),
      absorbed_(result_rows(layer) * static_cast<std::size_t>(layer.point().shape.d_qk)),
      memory_(static_cast<std::size_t>(threads() * bytes_per_thread())),
      inputs_(rank_inputs()) {}

std::string StepsContender::name() const {
  return std::string(layer().backend().name()) + " steps";
}

kernels::RankInputs StepsContender::rank_inputs() const {
  const Point& point = layer().point();
  kernels::RankInputs inputs{.kv = layer().kv(), .pieces = {}};
  for (std::int64_t r = 0; r < point.batch; ++r) {
    inputs.pieces.push_back({.block_table = nullptr,
                             .q = absorbed_.data() + r * point.rows() * point.shape.d_qk,
                             .first_head = 0,
                             .q_token_stride = point.heads * point.shape.d_qk,
                             .q_head_stride = point.shape.d_qk});
  }
  return inputs;
}

void StepsContender::prepare() {
  ProjectedContender::prepare();
  for (std::size_t r = 0; r < inputs_.pieces.size(); ++r) {
    inputs_.pieces[r].block_table = turn().block_tables[r];
  }
  for (ResultSlice& slice : results_.slices()) {
    poison(slice.lse.data(), 4 * std::ssize(slice.lse));
  }
}

float StepsContender::lse(std::int64_t request, std::int64_t row) const {
  return results_.slices()[request].lse[row];
}

void StepsContender::run() {
  kernels::absorb_queries(*turn().weights, layer().queries(), layer().total_q(), absorbed_.data(),
                          threads(), memory_.span());
  decoder_.run(inputs_, results_);
  project();
}

/// One thread's: gathered rows, then scratch.
std::int64_t StepsContender::bytes_per_thread() const {
  return kernels::kMaxProductRows * layer().point().shape.d_v * kElementBytes +
         round_up(kernels::projection_scratch_bytes(*turn().weights), 64);
}

void StepsContender::project() {
#pragma omp parallel for schedule(static, 1) num_threads(threads())
  for (int thread = 0; thread < threads(); ++thread) {
    const Range heads = even_part(layer().point().heads, threads(), thread);
    for (std::int64_t head = heads.begin; head < heads.end; ++head) {
      for (std::int64_t token = 0; token < layer().total_q(); token += kernels::kMaxProductRows) {
        const std::int64_t end = std::min(layer().total_q(), token + kernels::kMaxProductRows);
        project_tokens(head, {token, end}, memory_.data() + thread * bytes_per_thread());
      }
    }
  }
}

/// @param memory of this thread
void StepsContender::project_tokens(std::int64_t head, Range tokens, std::byte* memory) {
  const Point& point = layer().point();
  const std::int64_t row_bytes = point.shape.d_v * kElementBytes;
  for (std::int64_t token = tokens.begin; token < tokens.end; ++token) {
    const ResultSlice& slice = results_.slices()[token / point.query_len];
    const std::int64_t row = token % point.query_len * point.heads + head;
    std::copy_n(slice.out.data() + row * row_bytes, row_bytes,
                memory + (token - tokens.begin) * row_bytes);
  }
  const std::int64_t gathered = kernels::kMaxProductRows * row_bytes;
  const std::int64_t out_stride = point.heads * point.d_v_head;
  kernels::project_head(
      *turn().weights, head, tokens.size(), {memory, point.dtype, point.shape.d_v, point.shape.d_v},
      {out() + tokens.begin * out_stride + head * point.d_v_head, point.dtype, out_stride,
       point.d_v_head},
      {}, {memory + gathered, static_cast<std::size_t>(bytes_per_thread() - gathered)});
}

}  // namespace mla::launch::bench
