#include "kernels/cuda/batch_args.h"

#include <numbers>

namespace mla::kernels::cuda {
namespace {

OutType out_type_of(DType dtype) {
  if (dtype == DType::kFp32) return OutType::kFp32;
  return dtype == DType::kBf16 ? OutType::kBf16 : OutType::kFp16;
}

}  // namespace

DecodeArgs args_of(const Batch& batch, const OperatorLayout& layout, bool exact) {
  return {.q_token_stride = layout.q_token_stride,
          .q_head_stride = layout.q_head_stride,
          .page_block_size = batch.page_block_size,
          .page_stride = layout.kv_page_stride,
          .token_stride = layout.kv_token_stride,
          .kv_head_stride = layout.kv_head_stride,
          .out_token_stride = layout.out_token_stride,
          .out_head_stride = layout.out_head_stride,
          .lse_token_stride = layout.lse_token_stride,
          .lse_head_stride = layout.lse_head_stride,
          .h_kv = static_cast<std::int32_t>(batch.shape.h_kv),
          .d_qk = static_cast<std::int32_t>(batch.shape.d_qk),
          .d_v = static_cast<std::int32_t>(batch.shape.d_v),
          .out_type = out_type_of(batch.out_dtype),
          .bf16 = batch.dtype == DType::kBf16,
          .causal = batch.causal,
          .exact = exact,
          .scale_log2 = static_cast<float>(batch.softmax_scale * std::numbers::log2e)};
}

}  // namespace mla::kernels::cuda
