#pragma once

#include <cstdint>

#include "core/dtype.h"
#include "core/exact_math.h"
#include "core/partial.h"
#include "kernels/cuda/decode_args.h"
#include "kernels/cuda/simt/gpu.h"

// How GPU kernels write results and partials, four elements at a time: d_v, the offsets and the
// strides of `out` must be multiples of 4 elements and `out` be aligned to 16 bytes.

namespace mla::kernels::cuda {

/// Element 0 of a query row's result, from a part's or merge's `out` and `heads`.
__device__ __forceinline__ std::int64_t out_offset(const DecodeArgs& args, std::int64_t out,
                                                   std::int32_t heads, std::int32_t row) {
  return out + row / heads * args.out_token_stride + row % heads * args.out_head_stride;
}

/// A query row's lse, from a part's or merge's `lse` and `heads`.
__device__ __forceinline__ std::int64_t lse_offset(const DecodeArgs& args, std::int64_t lse,
                                                   std::int32_t heads, std::int32_t row) {
  return lse + row / heads * args.lse_token_stride + row % heads * args.lse_head_stride;
}

__device__ __forceinline__ std::uint32_t pack(std::uint16_t low, std::uint16_t high) {
  return low | static_cast<std::uint32_t>(high) << 16;
}

/// Elements [element, element + 4) of the output <- values, rounded to nearest even.
__device__ __forceinline__ void store_out(const DecodeArgs& args, std::int64_t element, float4 x) {
  if (args.out_type == OutType::kFp32) {
    *reinterpret_cast<float4*>(static_cast<float*>(args.out) + element) = x;
    return;
  }
  uint2 packed;
  if (args.out_type == OutType::kBf16) {
    packed = {pack(to_bf16(x.x).bits, to_bf16(x.y).bits),
              pack(to_bf16(x.z).bits, to_bf16(x.w).bits)};
  } else {
    packed = {pack(to_fp16(x.x).bits, to_fp16(x.y).bits),
              pack(to_fp16(x.z).bits, to_fp16(x.w).bits)};
  }
  *reinterpret_cast<uint2*>(static_cast<std::uint16_t*>(args.out) + element) = packed;
}

/// Four elements of a finished row, with the bits of `finalize_out`: o / l, or zeros for a row that
/// saw no key.
__device__ __forceinline__ float4 normalised(float4 o, float m_log2, float l) {
  if (m_log2 == -__builtin_huge_valf()) return {0.0F, 0.0F, 0.0F, 0.0F};
  return {gpu::div(o.x, l), gpu::div(o.y, l), gpu::div(o.z, l), gpu::div(o.w, l)};
}

/// The partial of `place`, its rows counted from `place.row_begin`.
__device__ __forceinline__ PartialView partial_of(const DecodeArgs& args,
                                                  const PartialPlace& place) {
  const PartialView whole = partial_at(args.partials + place.offset, place.rows, args.d_v);
  return rows_of(whole, {place.row_begin, place.rows});
}

/// Where the rows of a part or a merge go. `Rows` is either.
template <class Rows>
struct RowResults {
  const DecodeArgs& args;
  const Rows& rows;
  PartialPlace place;  ///< of the partial, if they are not final

  __device__ __forceinline__ RowResults(const DecodeArgs& args_of_run, const Rows& rows_of_plan,
                                        const PartialPlace& partial_place)
      : args(args_of_run), rows(rows_of_plan), place(partial_place) {}

  __device__ __forceinline__ bool final() const { return place.offset < 0; }

  /// Elements [d, d + 4) of row `row` (of these rows), whose sum is the unnormalised `o`.
  __device__ __forceinline__ void store(int row, int d, float4 o, float m_log2, float l) const {
    if (final()) {
      store_out(args, out_offset(args, rows.out, rows.heads, rows.row_begin + row) + d,
                normalised(o, m_log2, l));
    } else {
      float* to = partial_of(args, place).o + static_cast<std::int64_t>(row) * args.d_v + d;
      *reinterpret_cast<float4*>(to) = o;
    }
  }

  /// What belongs to the row as a whole; one thread calls it.
  __device__ __forceinline__ void store_row(int row, float m_log2, float l) const {
    if (final()) {
      args.lse[lse_offset(args, rows.lse, rows.heads, rows.row_begin + row)] = lse_exact(m_log2, l);
    } else {
      const PartialView partial = partial_of(args, place);
      partial.m_log2[row] = m_log2;
      partial.l[row] = l;
    }
  }
};

__device__ __forceinline__ RowResults<Part> results_of(const DecodeArgs& args, const Part& part) {
  return {args, part, part.partial};
}
__device__ __forceinline__ RowResults<Merge> results_of(const DecodeArgs& args,
                                                        const Merge& merge) {
  return {args, merge, merge.node};
}

}  // namespace mla::kernels::cuda
