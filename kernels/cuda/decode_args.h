#pragma once

#include <cstdint>

#include "kernels/cuda/device_plan.h"

namespace mla::kernels::cuda {

/// Element type of `DecodeArgs::out`.
enum class OutType : std::int32_t { kBf16, kFp16, kFp32 };

/// One run of the decode operator on a GPU: device pointers, strides in elements, and the plan's
/// tables in device memory. Plain data, passed to kernels by value.
struct DecodeArgs {
  const std::uint16_t* q = nullptr;  ///< element (token, head, d) at token * q_token_stride + ...
  std::int64_t q_token_stride = 0;
  std::int64_t q_head_stride = 0;

  const std::uint16_t* kv = nullptr;  ///< element (page, slot, head, d), as in KvView
  std::int64_t num_pages = 0;
  std::int64_t page_block_size = 64;
  std::int64_t page_stride = 0;
  std::int64_t token_stride = 0;
  std::int64_t kv_head_stride = 0;
  const std::int32_t* block_tables = nullptr;

  void* out = nullptr;
  std::int64_t out_token_stride = 0;
  std::int64_t out_head_stride = 0;
  float* lse = nullptr;
  std::int64_t lse_token_stride = 0;
  std::int64_t lse_head_stride = 1;

  std::int32_t h_kv = 1;
  std::int32_t d_qk = 0;
  std::int32_t d_v = 0;
  OutType out_type = OutType::kBf16;
  bool bf16 = true;  ///< q and kv; else fp16
  bool causal = true;
  bool exact = true;                 ///< of the plan
  std::int32_t part_alignment = 64;  ///< of the plan: every part begins at a multiple of it
  float scale_log2 = 0;

  const Part* parts = nullptr;
  const Merge* merges = nullptr;
  const MergeShare* shares = nullptr;
  const std::int32_t* share_offsets = nullptr;
  float* partials = nullptr;  ///< [DevicePlan::partial_floats]
  /// [merges, 2]: blocks that arrived, and blocks that have merged. Zero before the first run; a
  /// run leaves them zero. By mail [blocks]: runs so far.
  std::uint32_t* counters = nullptr;
};

}  // namespace mla::kernels::cuda
