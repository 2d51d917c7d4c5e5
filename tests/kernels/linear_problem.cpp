#include "tests/kernels/linear_problem.h"

#include <cmath>
#include <cstring>
#include <limits>
#include <random>

#include "core/dtype.h"

namespace mla::test {
namespace {

constexpr float kPoison = std::numeric_limits<float>::quiet_NaN();

/// A random number in the bits of `type`.
void put_random(WeightType type, std::mt19937_64& random, std::byte* to) {
  std::normal_distribution<float> normal;
  const auto put = [to](auto bits) { std::memcpy(to, &bits, sizeof bits); };
  switch (type) {
    case WeightType::kBf16:
      return put(to_bf16(normal(random)).bits);
    case WeightType::kFp16:
      return put(to_fp16(normal(random)).bits);
    case WeightType::kFp32:
      return put(normal(random));
    case WeightType::kFp8E4m3:
      // Any number that is not NaN.
      return put(static_cast<std::uint8_t>(random() % 127 + 128 * (random() % 2)));
  }
}

void put_nan(WeightType type, std::byte* to) {
  const auto put = [to](auto bits) { std::memcpy(to, &bits, sizeof bits); };
  switch (type) {
    case WeightType::kBf16:
      return put(to_bf16(kPoison).bits);
    case WeightType::kFp16:
      return put(to_fp16(kPoison).bits);
    case WeightType::kFp32:
      return put(kPoison);
    case WeightType::kFp8E4m3:
      return put(std::uint8_t{0x7f});
  }
}

template <class T>
T read(const std::byte* from) {
  T value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

}  // namespace

std::string to_string(const LinearSpec& spec) {
  static constexpr const char* kNames[] = {"bf16", "fp16", "fp32", "fp8"};
  return std::string(kNames[static_cast<int>(spec.type)]) + ", " + std::to_string(spec.rows) +
         " rows, " + std::to_string(spec.outputs) + " x " + std::to_string(spec.cols) + " weights";
}

double e4m3_value(std::uint8_t code) {
  const int exponent = code >> 3 & 15;
  const int mantissa = code & 7;
  const double sign = code & 0x80 ? -1 : 1;
  if ((code & 0x7f) == 0x7f) return std::numeric_limits<double>::quiet_NaN();
  if (exponent == 0) return sign * std::ldexp(mantissa, -9);
  return sign * std::ldexp(8 + mantissa, exponent - 10);
}

LinearProblem::LinearProblem(const LinearSpec& spec)
    : spec_(spec),
      weights_((spec.shift + spec.outputs * spec.cols) * size_of(spec.type), std::byte{0xff}),
      x_(spec.shift + spec.rows * (spec.cols + spec.x_gap), kPoison) {
  std::mt19937_64 random(spec.seed);
  for (std::int64_t o = 0; o < spec.outputs; ++o) {
    for (std::int64_t c = 0; c < spec.cols; ++c) put_random(spec.type, random, element(o, c));
  }
  std::normal_distribution<float> normal;
  for (std::int64_t i = 0; i < spec.rows; ++i) {
    float* x = x_.data() + spec.shift + i * (spec.cols + spec.x_gap);
    for (std::int64_t c = 0; c < spec.cols; ++c) x[c] = normal(random);
  }
  if (spec.type != WeightType::kFp8E4m3) return;
  scales_.resize(ceil_div(spec.outputs, kScaleBlock) * ceil_div(spec.cols, kScaleBlock));
  for (float& scale : scales_) scale = std::exp(normal(random)) / 100;
}

kernels::LinearParams LinearProblem::params(Range rows, Range outputs) const {
  const std::int64_t stride = spec_.cols + spec_.x_gap;
  return {.weights = {.data = weights_.data() + spec_.shift * size_of(spec_.type),
                      .type = spec_.type,
                      .rows = spec_.outputs,
                      .cols = spec_.cols,
                      .scales = scales_.empty() ? nullptr : scales_.data(),
                      .scale_cols = ceil_div(spec_.cols, kScaleBlock)},
          .outputs = outputs,
          .rows = rows.size(),
          .x = x_.data() + spec_.shift + rows.begin * stride,
          .x_stride = stride};
}

std::byte* LinearProblem::element(std::int64_t output, std::int64_t column) {
  return weights_.data() + (spec_.shift + output * spec_.cols + column) * size_of(spec_.type);
}

double LinearProblem::weight(std::int64_t output, std::int64_t column) const {
  const std::byte* from =
      weights_.data() + (spec_.shift + output * spec_.cols + column) * size_of(spec_.type);
  switch (spec_.type) {
    case WeightType::kBf16:
      return to_float(Bf16{read<std::uint16_t>(from)});
    case WeightType::kFp16:
      return to_float(Fp16{read<std::uint16_t>(from)});
    case WeightType::kFp32:
      return read<float>(from);
    case WeightType::kFp8E4m3:
      break;
  }
  const std::int64_t block =
      output / kScaleBlock * ceil_div(spec_.cols, kScaleBlock) + column / kScaleBlock;
  return e4m3_value(read<std::uint8_t>(from)) * scales_[block];
}

LinearProblem::Exact LinearProblem::exact(std::int64_t row, std::int64_t output) const {
  const float* x = x_.data() + spec_.shift + row * (spec_.cols + spec_.x_gap);
  Exact exact;
  for (std::int64_t c = 0; c < spec_.cols; ++c) {
    const double product = weight(output, c) * static_cast<double>(x[c]);
    exact.sum += product;
    exact.sum_of_magnitudes += std::abs(product);
  }
  return exact;
}

void LinearProblem::poison_row(std::int64_t row) {
  x_[spec_.shift + row * (spec_.cols + spec_.x_gap) + spec_.cols / 2] = kPoison;
}

void LinearProblem::poison_output(std::int64_t output) {
  put_nan(spec_.type, element(output, spec_.cols - 1));
}

}  // namespace mla::test
