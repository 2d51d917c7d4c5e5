#include "core/rope.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "core/exact_math.h"

namespace mla {
namespace {

/// theta^(2i / dim), the power taken in double and rounded once.
std::vector<float> wavelengths(double theta, std::int64_t dim) {
  std::vector<float> result;
  for (std::int64_t i = 0; i < dim; i += 2) {
    const float exponent = static_cast<float>(i) / static_cast<float>(dim);
    result.push_back(static_cast<float>(std::pow(theta, static_cast<double>(exponent))));
  }
  return result;
}

/// The pair that turns `rotations` times within the original context.
double pair_of(double rotations, double theta, std::int64_t dim, double original_max_position) {
  const double turns = original_max_position / (rotations * 2 * std::numbers::pi);
  return static_cast<double>(dim) * std::log(turns) / (2 * std::log(theta));
}

}  // namespace

std::vector<float> default_inverse_frequencies(double theta, std::int64_t dim) {
  std::vector<float> result = wavelengths(theta, dim);
  for (float& x : result) x = 1.0F / x;
  return result;
}

std::vector<float> yarn_inverse_frequencies(double theta, std::int64_t dim,
                                            const YarnConfig& yarn) {
  double low = pair_of(yarn.beta_fast, theta, dim, yarn.original_max_position);
  double high = pair_of(yarn.beta_slow, theta, dim, yarn.original_max_position);
  if (yarn.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, static_cast<double>(dim - 1));
  if (low == high) high += 0.001;

  std::vector<float> result = wavelengths(theta, dim);
  for (std::size_t i = 0; i < result.size(); ++i) {
    const float ramp =
        (static_cast<float>(i) - static_cast<float>(low)) / static_cast<float>(high - low);
    const float kept = 1.0F - std::clamp(ramp, 0.0F, 1.0F);
    const float fast = 1.0F / result[i];
    const float slow = 1.0F / (static_cast<float>(yarn.factor) * result[i]);
    result[i] = slow * (1.0F - kept) + fast * kept;
  }
  return result;
}

double yarn_mscale(double factor, double mscale) {
  return factor <= 1 ? 1.0 : 0.1 * mscale * std::log(factor) + 1.0;
}

std::vector<float> longrope_inverse_frequencies(double theta, std::int64_t dim,
                                                std::span<const double> factors) {
  std::vector<float> result = wavelengths(theta, dim);
  for (std::size_t i = 0; i < result.size(); ++i) {
    result[i] = 1.0F / (static_cast<float>(factors[i]) * result[i]);
  }
  return result;
}

double longrope_attention_factor(double factor, double original_max_position) {
  if (factor <= 1) return 1.0;
  return std::sqrt(1 + std::log(factor) / std::log(original_max_position));
}

std::span<const float> inverse_frequencies(const RopeConfig& rope, std::int64_t longest) {
  const bool use_long = !rope.long_inv_freq.empty() && longest > rope.long_after;
  return use_long ? rope.long_inv_freq : rope.inv_freq;
}

float position_scale(const AttentionConfig& attention, std::int64_t position) {
  if (attention.position_scale_beta == 0) return 1.0F;
  constexpr double kLn2 = 0x1.62e42fefa39efp-1;
  const auto periods = static_cast<float>(position / attention.position_scale_period);
  const auto log = static_cast<float>(log2_exact(1.0F + periods) * kLn2);
  return 1.0F + attention.position_scale_beta * log;
}

}  // namespace mla
