#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "kernels/linear.h"

namespace mla::test {

/// A linear layer and rows for it, and where they lie.
struct LinearSpec {
  WeightType type = WeightType::kBf16;
  std::int64_t rows = 1;
  std::int64_t outputs = 1;
  std::int64_t cols = 1;
  std::int64_t shift = 0;  ///< elements that W and x are moved by in memory
  std::int64_t x_gap = 0;  ///< elements between rows of x, NaN like all around
  std::uint64_t seed = 1;
};

std::string to_string(const LinearSpec& spec);

/// The number that a byte stands for in fp8 e4m3.
double e4m3_value(std::uint8_t code);

/// Random weights and rows; the same numbers wherever they lie.
class LinearProblem {
 public:
  explicit LinearProblem(const LinearSpec& spec);

  const LinearSpec& spec() const { return spec_; }
  /// Without y.
  kernels::LinearParams params(Range rows, Range outputs) const;

  struct Exact {
    double sum = 0;
    double sum_of_magnitudes = 0;
  };
  Exact exact(std::int64_t row, std::int64_t output) const;

  /// Puts a NaN into a row of x.
  void poison_row(std::int64_t row);
  /// Puts a NaN into the weights of an output.
  void poison_output(std::int64_t output);

 private:
  double weight(std::int64_t output, std::int64_t column) const;
  std::byte* element(std::int64_t output, std::int64_t column);

  LinearSpec spec_;
  std::vector<std::byte> weights_;
  std::vector<float> scales_;
  std::vector<float> x_;
};

}  // namespace mla::test
