#pragma once

#include "kernels/linear_kernel.h"

namespace mla::kernels::avx512 {

/// `LinearKernel::multiply` in fp32 for weights of all types. Needs a CPU with AVX-512 F, BW, DQ
/// and VL.
void multiply_linear(const LinearParams& layer, Range outputs, const std::byte* packed_x) noexcept;

}  // namespace mla::kernels::avx512
