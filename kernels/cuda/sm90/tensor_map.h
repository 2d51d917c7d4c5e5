#pragma once

#include <span>
#include <string>

#include <cuda.h>

#include "kernels/cuda/decode_args.h"
#include "kernels/cuda/device_kernel.h"

namespace mla::kernels::cuda::sm90 {

/// Elements of one row of a box: 128 bytes, the width of the swizzle.
inline constexpr int kBoxElements = 64;

/// Tokens of the largest boxes, of at most 64, that never cross a page's end.
int box_tokens(const DecodeArgs& args);

/// Why the copy engine cannot read the cache of `args`, as a clause; empty if it can.
std::string why_not_mapped(const DecodeArgs& args);

/// The cache of `args` as a tensor of as many dimensions as there are `sizes`, the contiguous one
/// first; `strides`, in bytes, are those of the others. Read in boxes of `box` elements in the
/// 128-byte swizzle; what lies outside reads as zero. Returns a cudaError_t.
ErrorCode map_tensor(const DecodeArgs& args, std::span<const cuuint64_t> sizes,
                     std::span<const cuuint64_t> strides, std::span<const cuuint32_t> box,
                     CUtensorMap& map);

/// The cache of `args` as the copy engine sees it, [h_kv, pages, slots, d_qk], in boxes of
/// `tokens` rows of kBoxElements in the 128-byte swizzle; what lies past d_qk reads as
/// zero. Returns a cudaError_t.
ErrorCode map_cache(const DecodeArgs& args, int tokens, CUtensorMap& map);

}  // namespace mla::kernels::cuda::sm90
