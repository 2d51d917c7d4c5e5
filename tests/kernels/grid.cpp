#include "tests/kernels/grid.h"

#include <random>

#include <gtest/gtest.h>

#include "tests/support/runner.h"

namespace mla::test {
namespace {

struct RowSizes {
  std::int64_t d_qk;
  std::int64_t d_v;
};
constexpr RowSizes kRowSizes[] = {{576, 512}, {320, 256}, {288, 256}, {80, 64}};
constexpr RowSizes kSmallest = kRowSizes[3];
constexpr std::int64_t kPageSizes[] = {64, 1, 100, 7, 16};
constexpr std::int64_t kChunkTokens[] = {512, 512, 64, 1024, 128, 512, 192};
constexpr double kManyFlops = 3e10;

}  // namespace

std::vector<GridPoint> flashmla_grid() {
  std::vector<GridPoint> points;
  for (const std::int64_t b : {1, 2, 6, 64, 128}) {
    for (const std::int64_t s_q : {1, 2, 4}) {
      for (const std::int64_t s_k : {20, 140, 4096}) {
        for (const std::int64_t h_q : {1, 3, 9, 63, 64, 126, 128}) {
          for (const std::int64_t h_kv : {1, 2, 3, 8}) {
            if (h_q % h_kv != 0) continue;
            for (int flags = 0; flags < 8; ++flags) {
              points.push_back(
                  {b, s_q, s_k, h_q, h_kv, (flags & 1) != 0, (flags & 2) != 0, (flags & 4) != 0});
            }
          }
        }
      }
    }
  }
  return points;
}

ProblemSpec problem_spec(const GridPoint& point, std::int64_t index) {
  ProblemSpec spec;
  spec.dtype = index % 3 == 2 ? DType::kFp16 : DType::kBf16;
  spec.page_block_size = kPageSizes[index % 5];
  spec.chunk_tokens = kChunkTokens[index % 7];
  spec.causal = point.causal;
  spec.seed = index + 1;
  spec.kv_magnitude = index % 4 == 1 ? 1 : 0.1;
  std::mt19937_64 random(index);
  std::normal_distribution<double> length(static_cast<double>(point.s_k),
                                          static_cast<double>(point.s_k) / 2);
  for (std::int64_t r = 0; r < point.b; ++r) {
    RequestSizes sizes{point.s_q, point.s_k};
    if (point.varlen) {
      sizes.query_len = 1 + static_cast<std::int64_t>(random() % point.s_q);
      sizes.context_len = std::max(sizes.query_len, static_cast<std::int64_t>(length(random)));
    }
    if (point.zero_lengths && r % 3 == 0) sizes.context_len = 0;
    spec.requests.push_back(sizes);
  }
  RowSizes row = kRowSizes[(index / 8) % 4];
  spec.shape = {point.h_q, point.h_kv, row.d_qk, row.d_v};
  if (flops_of(spec) > kManyFlops)
    spec.shape = {point.h_q, point.h_kv, kSmallest.d_qk, kSmallest.d_v};
  return spec;
}

double flops_of(const ProblemSpec& spec) {
  double pairs = 0;
  for (const RequestSizes& r : spec.requests) {
    pairs += static_cast<double>(r.query_len * r.context_len * spec.shape.h_q);
  }
  return 2 * pairs * static_cast<double>(spec.shape.d_qk + spec.shape.d_v);
}

void check_grid_point(const GridPoint& point, std::int64_t index,
                      const std::vector<const kernels::HostBackend*>& backends) {
  const Problem problem(problem_spec(point, index));
  const ExactResults exact = run_oracle(problem);
  for (const kernels::HostBackend* backend : backends) {
    const kernels::Comparison comparison = compare_results(run_backend(*backend, problem), exact);
    EXPECT_TRUE(comparison.pass) << backend->name() << " at " << to_string(point) << " (index "
                                 << index << "): " << kernels::to_string(comparison);
  }
}

std::string to_string(const GridPoint& p) {
  return "b=" + std::to_string(p.b) + " s_q=" + std::to_string(p.s_q) +
         " s_k=" + std::to_string(p.s_k) + " h_q=" + std::to_string(p.h_q) +
         " h_kv=" + std::to_string(p.h_kv) + (p.varlen ? " varlen" : "") +
         (p.causal ? " causal" : "") + (p.zero_lengths ? " zero_lengths" : "");
}

}  // namespace mla::test
