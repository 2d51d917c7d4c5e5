#pragma once

#include "kernels/cuda/device_kernel.h"

namespace mla::kernels::cuda::sm90 {

/// Any number of rows, 64 to a block, exact and fast plans.
const DeviceKernel& decode_m64();

}  // namespace mla::kernels::cuda::sm90
