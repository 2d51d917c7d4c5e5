#pragma once

#include "kernels/linear_kernel.h"

namespace mla::kernels::portable {

/// `LinearKernel::multiply` in fp32 for weights of all types, on any CPU.
void multiply_linear(const LinearParams& layer, Range outputs, const std::byte* packed_x) noexcept;

}  // namespace mla::kernels::portable
