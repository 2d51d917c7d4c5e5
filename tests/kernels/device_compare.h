#pragma once

#include <cstdint>

#include "kernels/cuda/runtime.h"
#include "kernels/reference/compare.h"

namespace mla::test {

/// Numbers in a GPU's memory, and what they should be.
struct ToCompare {
  const float* values = nullptr;
  const double* reference = nullptr;
  std::int64_t count = 0;
};

/// kernels::compare on the current GPU: the same but for the order of the cosine's sums.
/// @throws CudaError
kernels::Comparison compare_on_device(const ToCompare& out, const ToCompare& lse,
                                      const kernels::cuda::Stream& stream,
                                      const kernels::Tolerance& tolerance = {});

}  // namespace mla::test
