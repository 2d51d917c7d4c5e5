#pragma once

#include "kernels/projected_kernel.h"

namespace mla::kernels::portable {

/// Projections in fp32 for weights of `dtype`, bf16 or fp16, on any CPU.
const ProjectionKernel& projection_kernel(DType dtype);

}  // namespace mla::kernels::portable
