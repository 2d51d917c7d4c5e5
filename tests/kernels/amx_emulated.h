#pragma once

#include "kernels/backend.h"
#include "kernels/cpu/amx/scratch.h"
#include "kernels/linear.h"

namespace mla::test {

/// `kernels::amx::decode_bf16` with tiles in plain memory. Needs a CPU with AVX512-BF16.
void decode_on_emulated_tiles(const kernels::DecodeParams& params, Range chunks, float* nodes,
                              const kernels::amx::Scratch& scratch) noexcept;

/// `kernels::amx::multiply_linear_bf16` likewise.
void multiply_on_emulated_tiles(const kernels::LinearParams& layer, Range outputs,
                                const std::byte* packed_x) noexcept;

}  // namespace mla::test
