#include "tests/numerics/errors.h"

#include <algorithm>
#include <cmath>
#include <span>

#include "core/partial.h"
#include "kernels/reference/compare.h"
#include "tests/support/problem.h"
#include "tests/support/runner.h"

namespace mla::test {
namespace {

double root_mean_square(std::span<const double> values) {
  double sum = 0;
  for (const double x : values) sum += x * x;
  return std::sqrt(sum / static_cast<double>(values.size()));
}

/// RMS of values - exact, relative to the RMS of exact.
double relative_rms(std::span<const float> values, std::span<const double> exact) {
  std::vector<double> errors(exact.begin(), exact.end());
  for (std::size_t i = 0; i < errors.size(); ++i) errors[i] -= static_cast<double>(values[i]);
  return root_mean_square(errors) / root_mean_square(exact);
}

/// Largest relative error of the elements of one row that are at least its RMS.
double max_relative(std::span<const float> values, std::span<const double> exact) {
  const double threshold = root_mean_square(exact);
  double max = 0;
  for (std::size_t i = 0; i < exact.size(); ++i) {
    const double magnitude = std::fabs(exact[i]);
    if (magnitude < threshold) continue;
    max = std::max(max, std::fabs(static_cast<double>(values[i]) - exact[i]) / magnitude);
  }
  return max;
}

std::vector<float> rounded(std::span<const float> values, DType dtype) {
  std::vector<float> result;
  for (const float x : values)
    result.push_back(to_float(dtype, to_bits(dtype, static_cast<double>(x))));
  return result;
}

}  // namespace

FloatAttention run_backend(const kernels::HostBackend& backend,
                           const kernels::DecodeParams& params) {
  Nodes nodes = decode_whole(backend, params);
  FloatAttention result{std::vector<float>(nodes.rows * nodes.d_v), {}};
  for (std::int64_t row = 0; row < nodes.rows; ++row) {
    finalize_out(nodes[0], row, {0, nodes.d_v}, &result.out[row * nodes.d_v]);
    result.lse.push_back(finalize_lse(nodes[0], row));
  }
  return result;
}

ResultErrors errors_of(const FloatAttention& result, const ExactAttention& exact, DType dtype) {
  const std::vector<float> delivered = rounded(result.out, dtype);
  const kernels::Comparison whole = kernels::compare(result.out, result.lse, exact.out, exact.lse);
  const kernels::Comparison tolerated =
      kernels::compare(delivered, result.lse, exact.out, exact.lse);
  ResultErrors errors;
  errors.rms = relative_rms(result.out, exact.out);
  errors.rms_rounded = relative_rms(delivered, exact.out);
  errors.max_abs = whole.max_abs;
  const std::size_t d_v = exact.out.size() / exact.lse.size();
  for (std::size_t i = 0; i < exact.out.size(); i += d_v) {
    errors.max_rel = std::max(errors.max_rel, max_relative(std::span(result.out).subspan(i, d_v),
                                                           std::span(exact.out).subspan(i, d_v)));
  }
  errors.cosine = whole.cosine_difference;
  errors.lse_abs = whole.max_lse_abs;
  errors.mismatches = tolerated.mismatches;
  errors.pass = tolerated.pass;
  return errors;
}

}  // namespace mla::test
