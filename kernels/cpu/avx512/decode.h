#pragma once

#include "kernels/backend.h"
#include "kernels/cpu/scratch.h"

namespace mla::kernels::avx512 {

/// `HostBackend::decode` for a bf16 cache. Needs a CPU with AVX512-BF16.
void decode_bf16(const DecodeParams& params, Range chunks, float* nodes,
                 const cpu::Scratch& scratch) noexcept;

/// `HostBackend::decode` for any cache, in fp32. Needs AVX-512 F, BW, DQ and VL.
void decode_fp32(const DecodeParams& params, Range chunks, float* nodes,
                 const cpu::Scratch& scratch) noexcept;

/// `HostBackend::run_products` of vdpbf16ps and of fp32 FMAs, 512 bits each.
double run_bf16_products(std::int64_t count) noexcept;
double run_fp32_products(std::int64_t count) noexcept;

}  // namespace mla::kernels::avx512
