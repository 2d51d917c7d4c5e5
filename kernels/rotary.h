#pragma once

#include <cstdint>
#include <span>

namespace mla::kernels {

/// Cosines and sines of one position: of position * inv_freq[i], an angle rounded to fp32, times
/// `factor`. Same bits on every machine; within two units of the last place for angles below 2^20.
/// @param cosines,sines [inv_freq.size()]
void rotary_angles(std::span<const float> inv_freq, float factor, std::int64_t position,
                   float* cosines, float* sines) noexcept;

/// Turns pair i of x [2 * cosines.size()] by its angle, in place. Pair i is (2i, 2i + 1) if
/// `interleaved`, else (i, i + pairs).
void rotate(std::span<const float> cosines, const float* sines, bool interleaved,
            float* x) noexcept;

}  // namespace mla::kernels
