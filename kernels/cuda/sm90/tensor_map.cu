#include <numeric>

#include <cuda_runtime.h>

#include "kernels/cuda/sm90/tensor_map.h"

namespace mla::kernels::cuda::sm90 {
namespace {

constexpr int kTileTokens = 64;

using EncodeTensorMap = decltype(&cuTensorMapEncodeTiled);

/// The driver's function, without linking to the driver; null where there is none.
EncodeTensorMap find_encode() {
  void* function = nullptr;
  cudaDriverEntryPointQueryResult found{};
  const cudaError_t error = cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function,
                                                             12000, cudaEnableDefault, &found);
  if (error != cudaSuccess || found != cudaDriverEntryPointSuccess) return nullptr;
  return reinterpret_cast<EncodeTensorMap>(function);
}

}  // namespace

int box_tokens(const DecodeArgs& args) {
  const std::int64_t page = std::gcd<std::int64_t>(kTileTokens, args.page_block_size);
  return static_cast<int>(std::gcd<std::int64_t>(page, args.part_alignment));
}

std::string why_not_mapped(const DecodeArgs& args) {
  const auto is_odd = [](std::int64_t elements) { return elements % 8 != 0; };
  if (is_odd(args.token_stride) || (args.num_pages > 1 && is_odd(args.page_stride)) ||
      (args.h_kv > 1 && is_odd(args.kv_head_stride))) {
    return "strides of the cache must be multiples of 16 bytes";
  }
  if (reinterpret_cast<std::uintptr_t>(args.kv) % 16 != 0) {
    return "the cache must begin at a multiple of 16 bytes";
  }
  return {};
}

ErrorCode map_tensor(const DecodeArgs& args, std::span<const cuuint64_t> sizes,
                     std::span<const cuuint64_t> strides, std::span<const cuuint32_t> box,
                     CUtensorMap& map) {
  static const EncodeTensorMap encode = find_encode();
  if (encode == nullptr) return cudaErrorNotSupported;
  const cuuint32_t steps[] = {1, 1, 1, 1, 1};
  // Promotion to 256 bytes in L2 was slower: docs/hopper.md.
  const CUresult result = encode(
      &map, args.bf16 ? CU_TENSOR_MAP_DATA_TYPE_BFLOAT16 : CU_TENSOR_MAP_DATA_TYPE_FLOAT16,
      static_cast<cuuint32_t>(sizes.size()), const_cast<std::uint16_t*>(args.kv), sizes.data(),
      strides.data(), box.data(), steps, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
      CU_TENSOR_MAP_L2_PROMOTION_NONE, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  return result == CUDA_SUCCESS ? cudaSuccess : cudaErrorInvalidValue;
}

ErrorCode map_cache(const DecodeArgs& args, int tokens, CUtensorMap& map) {
  const cuuint64_t sizes[] = {
      static_cast<cuuint64_t>(args.d_qk), static_cast<cuuint64_t>(args.page_block_size),
      static_cast<cuuint64_t>(args.num_pages), static_cast<cuuint64_t>(args.h_kv)};
  // Strides of dimensions of size 1 count for nothing, but must be legal.
  const std::int64_t page_stride = args.num_pages > 1 ? args.page_stride : 8;
  const std::int64_t head_stride = args.h_kv > 1 ? args.kv_head_stride : 8;
  const cuuint64_t strides[] = {static_cast<cuuint64_t>(args.token_stride) * 2,
                                static_cast<cuuint64_t>(page_stride) * 2,
                                static_cast<cuuint64_t>(head_stride) * 2};
  const cuuint32_t box[] = {kBoxElements, static_cast<cuuint32_t>(tokens), 1, 1};
  return map_tensor(args, sizes, strides, box, map);
}

}  // namespace mla::kernels::cuda::sm90
