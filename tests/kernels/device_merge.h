#pragma once

#include "kernels/cuda/decode_args.h"
#include "kernels/cuda/device_kernel.h"

namespace mla::test {

/// Enqueues merge `index` of `args` as the blocks of one launch would do it that wait for each
/// other: all arrive, wait for all, merge their slices and say that they have. Returns a
/// cudaError_t.
kernels::cuda::ErrorCode launch_merge(const kernels::cuda::DecodeArgs& args, int index, int blocks,
                                      int threads, kernels::cuda::StreamHandle stream);

/// powers[i] <- exp2_exact(x[i]), logarithms[i] <- lse_exact(x[i], -x[i]), all on the device.
kernels::cuda::ErrorCode launch_exact_math(const float* x, int n, float* powers, float* logarithms,
                                           kernels::cuda::StreamHandle stream);

}  // namespace mla::test
