#pragma once

#include "kernels/cuda/decode_args.h"
#include "kernels/cuda/device_kernel.h"

namespace mla::test {

/// All rows of one request that read one KV head.
struct OracleItem {
  kernels::cuda::DeviceItem item;
  std::int64_t scores = 0;  ///< where those of the item begin: [rows, context_len]
};

/// Sizes of the largest item.
struct OracleSizes {
  std::int64_t items = 0;
  std::int64_t most_rows = 0;
  std::int64_t most_tokens = 0;
};

/// Where the oracle's results go, on the GPU like all that it reads.
struct OracleResults {
  double* scores = nullptr;  ///< scratch, as OracleItem says
  double* out = nullptr;     ///< by the strides of `DecodeArgs::out`
  double* lse = nullptr;     ///< likewise
};

/// kernels::oracle on a GPU: plain softmax attention in fp64, straight from the definition, all
/// scores first. Of `args` it reads the tensors and sizes, nothing of a plan. Keys that a later
/// query of the request sees must be finite. Returns a cudaError_t.
kernels::cuda::ErrorCode launch_oracle(const kernels::cuda::DecodeArgs& args,
                                       const OracleItem* items, const OracleSizes& sizes,
                                       const OracleResults& results,
                                       kernels::cuda::StreamHandle stream);

}  // namespace mla::test
