#pragma once

#include <cstdint>
#include <span>

namespace mla::kernels {

/// y = x / sqrt(mean of x^2 + eps) * weight, for one row (Zhang and Sennrich 2019). Sums are in a
/// fixed order. `y` may be `x`.
void rms_norm(std::span<const float> x, const float* weight, float eps, float* y) noexcept;

/// y = silu(gate) * up, where silu(x) = x / (1 + e^-x): SwiGLU (Shazeer 2020). `y` may be `gate`.
void silu_multiply(std::span<const float> gate, const float* up, float* y) noexcept;

}  // namespace mla::kernels
