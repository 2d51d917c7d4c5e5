#include <algorithm>
#include <cmath>
#include <vector>

#include "tests/kernels/device_compare.h"

namespace mla::test {
namespace {

using kernels::cuda::check_cuda;
using kernels::cuda::DeviceBuffer;
using kernels::cuda::Stream;

constexpr int kThreads = 256;
constexpr int kBlocks = 528;
constexpr double kTiny = 1e-6;  // as in kernels::compare
constexpr std::int64_t kNone = INT64_MAX;

/// What was found among some elements.
struct Findings {
  double max_abs;
  double max_rel;
  double product;  ///< sums of values * reference, and of both squares
  double squares;
  std::int64_t mismatches;
  std::int64_t first;

  __host__ __device__ void add(const Findings& other) {
    max_abs = fmax(max_abs, other.max_abs);
    max_rel = fmax(max_rel, other.max_rel);
    product += other.product;
    squares += other.squares;
    mismatches += other.mismatches;
    first = first < other.first ? first : other.first;
  }
};

constexpr Findings kNothing{0, 0, 0, 0, 0, kNone};

__device__ bool passes(double x, double reference, double abs_limit, double rel_limit,
                       Findings& findings) {
  if (!isfinite(x) || !isfinite(reference)) {
    return isnan(reference) ? isnan(x) : x == reference;
  }
  const double abs = fabs(x - reference);
  const double rel = abs / (fabs(reference) + kTiny);
  findings.max_abs = fmax(findings.max_abs, abs);
  findings.max_rel = fmax(findings.max_rel, rel);
  findings.product += x * reference;
  findings.squares += x * x + reference * reference;
  return abs < abs_limit || rel < rel_limit;
}

/// A block's findings go to findings[blockIdx.x].
__global__ void __launch_bounds__(kThreads)
    compare_elements(ToCompare to_compare, double abs_limit, double rel_limit, Findings* findings) {
  Findings own = kNothing;
  for (std::int64_t i = std::int64_t{blockIdx.x} * kThreads + threadIdx.x; i < to_compare.count;
       i += std::int64_t{kBlocks} * kThreads) {
    const auto x = static_cast<double>(to_compare.values[i]);
    if (passes(x, to_compare.reference[i], abs_limit, rel_limit, own)) continue;
    if (own.mismatches++ == 0) own.first = i;
  }
  __shared__ Findings of_threads[kThreads];
  of_threads[threadIdx.x] = own;
  for (unsigned half = kThreads / 2; half > 0; half /= 2) {
    __syncthreads();
    if (threadIdx.x < half) of_threads[threadIdx.x].add(of_threads[threadIdx.x + half]);
  }
  if (threadIdx.x == 0) findings[blockIdx.x] = of_threads[0];
}

Findings compare_all(const ToCompare& to_compare, double abs_limit, double rel_limit,
                     const Stream& stream) {
  const DeviceBuffer on_device(kBlocks * std::int64_t{sizeof(Findings)}, "findings");
  compare_elements<<<kBlocks, kThreads, 0, stream.get()>>>(to_compare, abs_limit, rel_limit,
                                                           on_device.as<Findings>());
  check_cuda(cudaGetLastError(), "compare_elements");
  std::vector<Findings> of_blocks(kBlocks);
  stream.download(of_blocks.data(), on_device.data(), on_device.bytes());
  stream.synchronise();
  Findings all = kNothing;
  for (const Findings& findings : of_blocks) all.add(findings);
  return all;
}

}  // namespace

kernels::Comparison compare_on_device(const ToCompare& out, const ToCompare& lse,
                                      const Stream& stream, const kernels::Tolerance& tolerance) {
  const Findings of_out = compare_all(out, tolerance.out_abs, tolerance.out_rel, stream);
  const Findings of_lse = compare_all(lse, tolerance.lse_abs, tolerance.lse_rel, stream);
  kernels::Comparison result;
  result.max_abs = of_out.max_abs;
  result.max_rel = of_out.max_rel;
  result.max_lse_abs = of_lse.max_abs;
  if (of_out.squares > 0) result.cosine_difference = 1 - 2 * of_out.product / of_out.squares;
  result.mismatches = of_out.mismatches + of_lse.mismatches;
  const std::int64_t first = of_out.mismatches > 0 ? of_out.first : of_lse.first;
  if (first != kNone) result.first_mismatch = first;
  result.pass = result.mismatches == 0 && result.cosine_difference < tolerance.cosine_difference;
  return result;
}

}  // namespace mla::test
