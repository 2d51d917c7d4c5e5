#include "kernels/reference/compare.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

namespace mla::kernels {
namespace {

/// Keeps relative errors of elements near zero from meaning anything.
constexpr double kTiny = 1e-6;

bool same_special(double x, double reference) {
  if (std::isnan(reference)) return std::isnan(x);
  return x == reference;
}

struct Errors {
  double max_abs = 0;
  double max_rel = 0;
  std::int64_t mismatches = 0;
  std::int64_t first = -1;
};

Errors errors_of(std::span<const float> values, std::span<const double> reference, double abs_limit,
                 double rel_limit) {
  Errors errors;
  for (std::size_t i = 0; i < values.size(); ++i) {
    const auto x = static_cast<double>(values[i]);
    bool pass = false;
    if (std::isfinite(x) && std::isfinite(reference[i])) {
      const double abs = std::fabs(x - reference[i]);
      const double rel = abs / (std::fabs(reference[i]) + kTiny);
      errors.max_abs = std::max(errors.max_abs, abs);
      errors.max_rel = std::max(errors.max_rel, rel);
      pass = abs < abs_limit || rel < rel_limit;
    } else {
      pass = same_special(x, reference[i]);
    }
    if (pass) continue;
    if (errors.mismatches++ == 0) errors.first = static_cast<std::int64_t>(i);
  }
  return errors;
}

double cosine_difference(std::span<const float> values, std::span<const double> reference) {
  double product = 0;
  double squares = 0;
  for (std::size_t i = 0; i < values.size(); ++i) {
    const auto x = static_cast<double>(values[i]);
    const double y = reference[i];
    if (!std::isfinite(x) || !std::isfinite(y)) continue;
    product += x * y;
    squares += x * x + y * y;
  }
  return squares == 0 ? 0 : 1 - 2 * product / squares;
}

}  // namespace

Comparison compare(std::span<const float> out, std::span<const float> lse,
                   std::span<const double> ref_out, std::span<const double> ref_lse,
                   const Tolerance& tolerance) {
  Comparison result;
  if (out.size() != ref_out.size() || lse.size() != ref_lse.size()) return result;
  const Errors of_out = errors_of(out, ref_out, tolerance.out_abs, tolerance.out_rel);
  const Errors of_lse = errors_of(lse, ref_lse, tolerance.lse_abs, tolerance.lse_rel);
  result.max_abs = of_out.max_abs;
  result.max_rel = of_out.max_rel;
  result.cosine_difference = cosine_difference(out, ref_out);
  result.max_lse_abs = of_lse.max_abs;
  result.mismatches = of_out.mismatches + of_lse.mismatches;
  result.first_mismatch = of_out.mismatches > 0 ? of_out.first : of_lse.first;
  result.pass = result.mismatches == 0 && result.cosine_difference < tolerance.cosine_difference;
  return result;
}

std::string to_string(const Comparison& c) {
  char line[256];
  std::snprintf(line, sizeof line,
                "%s: out max abs %.2e, max rel %.2e, cosine difference %.2e; lse max abs %.2e; "
                "%lld mismatches, the first at %lld",
                c.pass ? "pass" : "FAIL", c.max_abs, c.max_rel, c.cosine_difference, c.max_lse_abs,
                static_cast<long long>(c.mismatches), static_cast<long long>(c.first_mismatch));
  return line;
}

}  // namespace mla::kernels
