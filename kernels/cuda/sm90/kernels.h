#pragma once

#include "kernels/cuda/device_kernel.h"

namespace mla::kernels::cuda::sm90 {

/// Any number of rows, 64 to a block; made for exact plans.
const DeviceKernel& decode_m64();

/// Any number of rows, 64 to a block, fast plans only: made for busy tensor cores.
const DeviceKernel& decode_seesaw();

/// At most 16 rows in a part, fast plans only: made for short times.
const DeviceKernel& decode_m16();

}  // namespace mla::kernels::cuda::sm90
