#pragma once

#include <cstdint>

#include "kernels/projected_kernel.h"

namespace mla::kernels::avx512 {

inline constexpr std::int64_t kPanel = 32;  ///< output elements side by side in a packed matrix

/// `ProjectionKernel::multiply` for bf16, with W packed as [d_out / 32][d_in / 2][32] pairs of the
/// elements 2i and 2i + 1; a last half panel is filled up with zeros. Needs a CPU with AVX512-BF16.
/// @param rounded [64, d_in] room for rows of x that come as fp32
void multiply_bf16(const HeadProduct& product, std::uint16_t* rounded) noexcept;

/// `ProjectionKernel::normalise` for bf16. Subnormal results become 0, as the products would take
/// them.
void normalise_bf16(const PartialView& partial, std::uint16_t* y, std::int64_t y_stride) noexcept;

/// Projections with AVX512-BF16.
const ProjectionKernel& bf16_projection_kernel();

}  // namespace mla::kernels::avx512
