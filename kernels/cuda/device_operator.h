#pragma once

#include <memory>
#include <string_view>

#include "kernels/cuda/kernel_list.h"
#include "kernels/decode_operator.h"

namespace mla::kernels::cuda {

/// The decode operator on GPU `options.device`, by the first of `kernels` that can compute it.
/// Tensors lie in that GPU's memory, block tables too. The calling thread's current device is left
/// as it was, by this and by all calls of the operator.
/// @throws Unsupported if none can, CudaError
std::unique_ptr<DecodeOperator> make_device_operator(std::string_view backend,
                                                     const KernelList& kernels, const Batch& batch,
                                                     const OperatorLayout& layout,
                                                     const OperatorOptions& options);

}  // namespace mla::kernels::cuda
