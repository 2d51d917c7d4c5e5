#pragma once

#include <cstdint>
#include <cstring>

#include "core/dtype.h"

namespace mla::kernels {

/// to[n] <- the exact values of n elements.
inline void widen(DType dtype, const std::uint16_t* from, std::int64_t n, double* to) {
  if (dtype == DType::kFp32) {
    for (std::int64_t i = 0; i < n; ++i) {
      float element;
      std::memcpy(&element, from + 2 * i, sizeof element);
      to[i] = static_cast<double>(element);
    }
  } else {
    for (std::int64_t i = 0; i < n; ++i) to[i] = static_cast<double>(to_float(dtype, from[i]));
  }
}

/// Needs n % 8 == 0, which every row width is. Eight sums at a time, so that it vectorises.
inline double dot(const double* a, const double* b, std::int64_t n) {
  double sums[8] = {};
  for (std::int64_t i = 0; i < n; i += 8) {
    for (std::int64_t lane = 0; lane < 8; ++lane) sums[lane] += a[i + lane] * b[i + lane];
  }
  return ((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7]));
}

/// y <- y + a x
inline void add_scaled(double* y, double a, const double* x, std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) y[i] += a * x[i];
}

}  // namespace mla::kernels
