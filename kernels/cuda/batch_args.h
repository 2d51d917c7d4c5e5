#pragma once

#include "core/batch.h"
#include "kernels/cuda/decode_args.h"
#include "kernels/decode_operator.h"

namespace mla::kernels::cuda {

/// All of a run's arguments that follow from the sizes of `batch` and from where its tensors lie;
/// the pointers are null.
DecodeArgs args_of(const Batch& batch, const OperatorLayout& layout, bool exact);

}  // namespace mla::kernels::cuda
