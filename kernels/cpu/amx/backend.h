#pragma once

#include "kernels/backend.h"

namespace mla::kernels::amx {

/// "amx": AMX-BF16 tiles for bf16 caches; fp16 ones are left to "avx512". Asks the system for the
/// use of tiles, once per process, when first asked whether it is available.
const HostBackend& backend();

}  // namespace mla::kernels::amx
