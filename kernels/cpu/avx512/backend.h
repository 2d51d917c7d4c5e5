#pragma once

#include "kernels/backend.h"

namespace mla::kernels::avx512 {

/// "avx512": AVX512-BF16 for bf16 caches, fp32 FMA for fp16 ones.
const Backend& backend();

}  // namespace mla::kernels::avx512
