#include <cuda_runtime.h>

#include "kernels/cuda/sm90/row_block_kernel.h"
#include "kernels/cuda/sm90/tensor_map.h"

namespace mla::kernels::cuda::sm90 {

std::string RowBlockKernel::why_unsupported(const DecodeArgs& args) const {
  if (choose(args).kernel == nullptr) {
    return "it takes rows of 513 to 576 elements with 512 values, and 257 to 320 with 256";
  }
  if (args.d_qk % 8 != 0 || args.q_token_stride % 8 != 0 || args.q_head_stride % 8 != 0) {
    return "rows and strides of queries must be multiples of 16 bytes";
  }
  if (!(args.scale_log2 > 0)) return "the softmax scale must be positive";
  return why_not_mapped(args);
}

ErrorCode RowBlockKernel::launch(const DecodeArgs& args, const KernelGeometry& geometry,
                                 StreamHandle stream) const {
  const RowBlockChoice choice = choose(args);
  const int tokens = box_tokens(args);
  CUtensorMap map;
  if (const ErrorCode error = map_cache(args, tokens, map); error != cudaSuccess) return error;
  if (const cudaError_t error =
          cudaFuncSetAttribute(reinterpret_cast<const void*>(choice.kernel),
                               cudaFuncAttributeMaxDynamicSharedMemorySize, choice.shared_bytes);
      error != cudaSuccess) {
    return error;
  }
  cudaLaunchAttribute attributes[2];
  attributes[0].id = cudaLaunchAttributeCooperative;  // blocks wait for one another's parts
  attributes[0].val.cooperative = 1;
  attributes[1].id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attributes[1].val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = static_cast<unsigned>(geometry.teams * geometry.blocks_per_team);
  config.blockDim = static_cast<unsigned>(choice.threads);
  config.dynamicSmemBytes = static_cast<std::size_t>(choice.shared_bytes);
  config.stream = stream;
  config.attrs = attributes;
  config.numAttrs = 2;
  return cudaLaunchKernelEx(&config, choice.kernel, args, map, tokens, geometry.blocks_per_team);
}

}  // namespace mla::kernels::cuda::sm90
