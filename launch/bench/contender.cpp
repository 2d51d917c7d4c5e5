#include "launch/bench/contender.h"

#include <algorithm>

#include "core/generator.h"
#include "core/split_plan.h"
#include "kernels/reference/oracle.h"

namespace mla::launch::bench {
namespace {

constexpr std::int64_t kCheckedKeys = 1 << 18;  // over all rows of a sample
constexpr std::int64_t kFewestRows = 2;
constexpr std::int64_t kMostRows = 16;

void append_expected(const Workload& workload, const kernels::RankInputs& inputs,
                     std::int64_t request, std::int64_t row, std::vector<double>& out,
                     std::vector<double>& lse) {
  const WorkItem item{.piece = request,
                      .request = request,
                      .kv_head = 0,
                      .heads = {0, workload.point.heads},
                      .rows = {row, row + 1},
                      .chunks = {}};
  out.resize(out.size() + workload.point.shape.d_v);
  lse.push_back(0);
  kernels::oracle(kernels::decode_params(workload.batch, item, inputs),
                  &out[out.size() - workload.point.shape.d_v], &lse.back());
}

}  // namespace

Workload::Workload(const Point& p)
    : point(p), batch(make_batch(p)), q(p.batch * p.rows() * p.shape.d_qk) {
  const std::int64_t elements = p.rows() * p.shape.d_qk;
#pragma omp parallel for schedule(static)
  for (std::int64_t r = 0; r < p.batch; ++r) {
    generate_elements(1, GeneratedTensor::kQuery, r, 0, p.dtype,
                      {q.data() + r * elements, static_cast<std::size_t>(elements)});
  }
}

kernels::RankInputs Workload::inputs(const KvView& kv) const {
  kernels::RankInputs inputs{.kv = kv, .pieces = {}};
  for (std::int64_t r = 0; r < point.batch; ++r) {
    inputs.pieces.push_back({.block_table = nullptr,
                             .q = query(r),
                             .first_head = 0,
                             .q_token_stride = point.heads * point.shape.d_qk,
                             .q_head_stride = point.shape.d_qk});
  }
  return inputs;
}

kernels::Comparison check_sample(const Workload& workload, const kernels::RankInputs& inputs,
                                 const RowReader& read_row) {
  const Point& point = workload.point;
  const std::int64_t all = point.batch * point.rows();
  const std::int64_t wanted = std::clamp(kCheckedKeys / point.context_len, kFewestRows, kMostRows);
  const std::int64_t count = std::min(all, wanted);
  std::vector<float> out, lse;
  std::vector<double> expected_out, expected_lse;
  for (std::int64_t i = 0; i < count; ++i) {
    const std::int64_t place = count == 1 ? 0 : i * (all - 1) / (count - 1);
    const std::int64_t request = place / point.rows();
    const std::int64_t row = place % point.rows();
    const RowResult result = read_row(request, row);
    out.insert(out.end(), result.out.begin(), result.out.end());
    lse.push_back(result.lse);
    append_expected(workload, inputs, request, row, expected_out, expected_lse);
  }
  return kernels::compare(out, lse, expected_out, expected_lse);
}

}  // namespace mla::launch::bench
