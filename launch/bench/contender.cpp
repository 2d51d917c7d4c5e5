#include "launch/bench/contender.h"

#include <algorithm>
#include <cstring>

#include "core/generator.h"
#include "core/split_plan.h"
#include "dist/stopwatch.h"
#include "kernels/reference/oracle.h"

namespace mla::launch::bench {
namespace {

constexpr std::int64_t kCheckedKeys = 1 << 18;  // over all rows of a sample
constexpr std::int64_t kFewestRows = 2;
constexpr std::int64_t kMostRows = 16;

ExactRow decode_exactly(const Workload& workload, const kernels::RankInputs& inputs,
                        std::int64_t request, std::int64_t row) {
  const WorkItem item{.piece = request,
                      .request = request,
                      .kv_head = 0,
                      .heads = {0, workload.point.heads},
                      .rows = {row, row + 1},
                      .chunks = {}};
  ExactRow exact{.out = std::vector<double>(workload.point.shape.d_v)};
  kernels::oracle(kernels::decode_params(workload.batch, item, inputs), exact.out.data(),
                  &exact.lse);
  return exact;
}

}  // namespace

double Contender::timed_run() {
  const dist::Stopwatch watch;
  run();
  return watch.seconds();
}

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

std::vector<float> read_elements(const void* out, DType dtype, std::int64_t row,
                                 std::int64_t size) {
  std::vector<std::uint16_t> bits(size);
  std::memcpy(bits.data(), static_cast<const std::byte*>(out) + 2 * row * size, 2 * bits.size());
  std::vector<float> elements(size);
  std::transform(bits.begin(), bits.end(), elements.begin(), [dtype](std::uint16_t b) {
    return dtype == DType::kBf16 ? to_float(Bf16{b}) : to_float(Fp16{b});
  });
  return elements;
}

void poison(void* results, std::int64_t bytes) {
  constexpr int kAllOnes = 0xff;
  std::memset(results, kAllOnes, static_cast<std::size_t>(bytes));
}

kernels::Comparison check_sample(const Point& point, const RowOracle& oracle,
                                 const RowReader& read_row) {
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
    const ExactRow exact = oracle(request, row);
    expected_out.insert(expected_out.end(), exact.out.begin(), exact.out.end());
    expected_lse.push_back(exact.lse);
  }
  return kernels::compare(out, lse, expected_out, expected_lse);
}

kernels::Comparison check_sample(const Workload& workload, const kernels::RankInputs& inputs,
                                 const RowReader& read_row) {
  const auto oracle = [&](std::int64_t request, std::int64_t row) {
    return decode_exactly(workload, inputs, request, row);
  };
  return check_sample(workload.point, oracle, read_row);
}

}  // namespace mla::launch::bench
