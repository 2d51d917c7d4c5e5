#pragma once

#include "kernels/backend.h"

namespace mla::kernels::cuda {

/// "sm90": tensor cores and the copy engine of Hopper GPUs (H100, H200).
const Backend& sm90_backend();

/// "simt": plain CUDA C++ without tensor cores, for any NVIDIA GPU of compute capability 7.5 or
/// newer.
const Backend& simt_backend();

}  // namespace mla::kernels::cuda
