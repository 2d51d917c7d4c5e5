#pragma once

#include "kernels/backend.h"

namespace mla::test {

/// How much of an activation, relatively, the linear layers of the backend that jobs take here may
/// lose: `amx` splits it into two numbers of bf16 (docs/kernels.md, "Linear layers").
inline float activation_loss() {
  return kernels::find_host_backend("auto").name() == "amx" ? 0x1p-17F : 0;
}

}  // namespace mla::test
