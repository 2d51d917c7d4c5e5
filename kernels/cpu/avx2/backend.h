#pragma once

#include "kernels/backend.h"

namespace mla::kernels::avx2 {

/// "avx2": fp32 in 256-bit vectors, for x86-64 CPUs with AVX2, FMA and F16C.
const HostBackend& backend();

}  // namespace mla::kernels::avx2
