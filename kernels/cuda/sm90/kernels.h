#pragma once

#include "kernels/cuda/device_kernel.h"

namespace mla::kernels::cuda {

/// "sm90-m64": tiles of 64 query rows, exact and fast plans.
const DeviceKernel& decode_m64();

/// "sm90-m16": at most 16 query rows in a part, fast plans only. Made for low latency.
const DeviceKernel& decode_m16();

}  // namespace mla::kernels::cuda
