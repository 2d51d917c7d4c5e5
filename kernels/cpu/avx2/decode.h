#pragma once

#include "kernels/backend.h"
#include "kernels/cpu/scratch.h"

namespace mla::kernels::avx2 {

/// `HostBackend::decode` for any cache. Needs AVX2, FMA and F16C.
void decode(const DecodeParams& params, Range chunks, float* nodes,
            const cpu::Scratch& scratch) noexcept;

/// `HostBackend::run_products`.
double run_products(std::int64_t count) noexcept;

}  // namespace mla::kernels::avx2
