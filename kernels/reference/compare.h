#pragma once

#include <cstdint>
#include <span>
#include <string>

namespace mla::kernels {

/// How far results may be from the oracle: FlashMLA's own tolerances.
struct Tolerance {
  double out_abs = 8e-4;  ///< an element of out passes if either holds
  double out_rel = 2.01 / 128;
  double cosine_difference = 5e-6;
  double lse_abs = 1e-6;  ///< an lse passes if either holds
  double lse_rel = 8.01 / 65536;
};

/// What a comparison found. Errors are over the elements that are finite on both sides.
struct Comparison {
  bool pass = false;
  double max_abs = 0;            ///< of out
  double max_rel = 0;            ///< of out: |x - y| / (|y| + 1e-6)
  double cosine_difference = 0;  ///< 1 - 2 sum(x y) / sum(x^2 + y^2) over all of out
  double max_lse_abs = 0;
  std::int64_t mismatches = 0;       ///< elements of out and lse that fail
  std::int64_t first_mismatch = -1;  ///< of out if it has any, else of lse; -1 if there is none
};

/// Compares results with an oracle's. Infinities and NaN must be in the same places (and have the
/// same sign). Sizes must agree.
Comparison compare(std::span<const float> out, std::span<const float> lse,
                   std::span<const double> ref_out, std::span<const double> ref_lse,
                   const Tolerance& tolerance = {});

/// One line for people.
std::string to_string(const Comparison& comparison);

}  // namespace mla::kernels
