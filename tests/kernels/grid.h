#pragma once

#include <string>
#include <vector>

#include "tests/support/problem.h"

namespace mla::test {

/// One point of FlashMLA's test grid.
struct GridPoint {
  std::int64_t b;
  std::int64_t s_q;
  std::int64_t s_k;
  std::int64_t h_q;
  std::int64_t h_kv;
  bool varlen;
  bool causal;
  bool zero_lengths;
};

/// All points: b {1,2,6,64,128} x s_q {1,2,4} x s_k {20,140,4096} x h_q {1,3,9,63,64,126,128} x
/// h_kv {1,2,3,8} where it divides x varlen x causal x zero lengths.
std::vector<GridPoint> flashmla_grid();

/// The problem of the point with that index. Row sizes, element types, page sizes and chunk sizes
/// go round with the index; the largest points get the smallest rows.
ProblemSpec problem_spec(const GridPoint& point, std::int64_t index);

/// FLOPs of one pass over the problem.
double flops_of(const ProblemSpec& spec);

/// Runs the backends on the point and adds a test failure for each that is not within tolerance.
void check_grid_point(const GridPoint& point, std::int64_t index,
                      const std::vector<const kernels::HostBackend*>& backends);

std::string to_string(const GridPoint& point);

}  // namespace mla::test
