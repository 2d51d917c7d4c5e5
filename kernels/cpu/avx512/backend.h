#pragma once

#include "kernels/backend.h"

namespace mla::kernels::avx512 {

/// "avx512": AVX512-BF16 for bf16 caches, fp32 for fp16 caches, both in 512-bit vectors.
const HostBackend& backend();

/// "avx512-fp32": fp32 for all caches, for CPUs whose AVX-512 has no bf16 products.
const HostBackend& fp32_backend();

}  // namespace mla::kernels::avx512
