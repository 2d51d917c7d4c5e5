#pragma once

#include "kernels/backend.h"

namespace mla::kernels::reference {

/// "reference": fp64 inside a chunk, rounded to the fp32 partial at its end. Plain and slow.
const Backend& backend();

}  // namespace mla::kernels::reference
