#include "kernels/activation.h"

#include <cmath>

#include "core/exact_math.h"

namespace mla::kernels {

void rms_norm(std::span<const float> x, const float* weight, float eps, float* y) noexcept {
  constexpr std::size_t kLanes = 16;
  float sums[kLanes] = {};
  const std::size_t whole = x.size() / kLanes * kLanes;
  for (std::size_t i = 0; i < whole; i += kLanes) {
    for (std::size_t lane = 0; lane < kLanes; ++lane) sums[lane] += x[i + lane] * x[i + lane];
  }
  for (std::size_t i = whole; i < x.size(); ++i) sums[i - whole] += x[i] * x[i];
  for (std::size_t half = kLanes / 2; half > 0; half /= 2) {
    for (std::size_t lane = 0; lane < half; ++lane) sums[lane] += sums[lane + half];
  }
  const float mean = sums[0] / static_cast<float>(x.size());
  const float scale = 1.0F / std::sqrt(mean + eps);
  for (std::size_t i = 0; i < x.size(); ++i) y[i] = weight[i] * (x[i] * scale);
}

void silu_multiply(std::span<const float> gate, const float* up, float* y) noexcept {
  constexpr float kLog2E = 0x1.715476p+0F;
  for (std::size_t i = 0; i < gate.size(); ++i) {
    const float x = gate[i];
    const float e = exp2_exact((x < 0 ? x : -x) * kLog2E);
    const float sigmoid = x < 0 ? e / (1.0F + e) : 1.0F / (1.0F + e);
    y[i] = x * sigmoid * up[i];
  }
}

}  // namespace mla::kernels
