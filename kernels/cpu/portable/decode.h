#pragma once

#include "kernels/backend.h"
#include "kernels/cpu/scratch.h"

namespace mla::kernels::portable {

/// `Backend::decode` for any cache on any CPU of the target that it is compiled for.
void decode(const DecodeParams& params, Range chunks, float* nodes,
            const cpu::Scratch& scratch) noexcept;

}  // namespace mla::kernels::portable
