#pragma once

#include "kernels/backend.h"

namespace mla::kernels::portable {

/// "portable": fp32 in plain C++ that the compiler vectorises, for any CPU.
const HostBackend& backend();

}  // namespace mla::kernels::portable
