#pragma once

#include "kernels/cuda/device_kernel.h"

namespace mla::kernels::cuda {

/// The kernel for GPUs without tensor cores or large shared memories: fp32 arithmetic, 16 KB of
/// shared memory per block at most, any sizes whose rows begin at multiples of 16 bytes. Exact and
/// fast plans. Two launches: the parts, then their merges. See docs/simt.md.
const DeviceKernel& simt_kernel();

}  // namespace mla::kernels::cuda
