#pragma once

#include <cstdint>

#include "kernels/backend.h"
#include "kernels/cpu/amx/scratch.h"

namespace mla::kernels::amx {

/// `HostBackend::decode` for a bf16 cache. Needs a CPU with AMX-BF16 and AVX512-BF16, and that this
/// process was granted the use of tiles.
void decode_bf16(const DecodeParams& params, Range chunks, float* nodes,
                 const Scratch& scratch) noexcept;

/// `HostBackend::run_products` for bf16 caches, on the same terms.
double run_products(std::int64_t count) noexcept;

}  // namespace mla::kernels::amx
