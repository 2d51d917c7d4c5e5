#pragma once

#include "kernels/backend.h"
#include "kernels/cpu/amx/scratch.h"

namespace mla::test {

/// `kernels::amx::decode_bf16` with tiles in plain memory. Needs a CPU with AVX512-BF16.
void decode_on_emulated_tiles(const kernels::DecodeParams& params, Range chunks, float* nodes,
                              const kernels::amx::Scratch& scratch) noexcept;

}  // namespace mla::test
