#pragma once

#include "kernels/backend.h"

namespace mla::kernels::reference {

/// "reference": fp64 inside a chunk, rounded to the fp32 partial at its end. Plain and slow.
const HostBackend& backend();

}  // namespace mla::kernels::reference
