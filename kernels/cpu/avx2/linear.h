#pragma once

#include "kernels/linear_kernel.h"

namespace mla::kernels::avx2 {

/// `LinearKernel::multiply` in fp32 for weights of all types. Needs a CPU with AVX2, FMA and F16C.
void multiply_linear(const LinearParams& layer, Range outputs, const std::byte* packed_x) noexcept;

}  // namespace mla::kernels::avx2
