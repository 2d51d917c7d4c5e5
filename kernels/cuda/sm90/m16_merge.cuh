#pragma once

#include "kernels/cuda/decode_args.h"
#include "kernels/cuda/sm90/m16_block.cuh"

namespace mla::kernels::cuda::m16 {

/// A row's part of a merge, of four elements.
struct Sum {
  float m = -INFINITY;
  float l = 0;
  float4 o = {0, 0, 0, 0};

  __device__ __forceinline__ void add(float other_m, float other_l, float4 other) {
    const float new_m = fmaxf(m, other_m);
    if (new_m == -INFINITY) return;
    const float mine = fast_exp2(m - new_m);
    const float its = fast_exp2(other_m - new_m);
    m = new_m;
    l = l * mine + other_l * its;
    o.x = o.x * mine + other.x * its;
    o.y = o.y * mine + other.y * its;
    o.z = o.z * mine + other.z * its;
    o.w = o.w * mine + other.w * its;
  }
};

template <int kDV, int kBlocks>
__device__ void merge_share(const DecodeArgs& args, int index, int slice, char* memory) {
  const Merge merge = args.merges[index];
  if (threadIdx.x == 0) {
    unsigned arrived;
    do {
      asm volatile("ld.acquire.gpu.u32 %0, [%1];"
                   : "=r"(arrived)
                   : "l"(args.counters + 2 * index)
                   : "memory");
    } while (arrived < static_cast<unsigned>(merge.count * kBlocks));
  }
  __syncthreads();
  const int all = merge.rows * kDV / 4;
  const int begin = static_cast<int>(static_cast<std::int64_t>(all) * slice / merge.blocks);
  const int end = static_cast<int>(static_cast<std::int64_t>(all) * (slice + 1) / merge.blocks);
  const int padded_rows = (merge.rows + 15) / 16 * 16;
  auto* sums = reinterpret_cast<Sum*>(memory);
  for (int from = begin; from < end; from += 256) {
    const int places = min(256, end - from);
    const int lanes = min(256 / places, merge.count);
    const int thread = static_cast<int>(threadIdx.x);
    const int lane = thread / places;
    const int place = from + thread % places;
    const int row = place / (kDV / 4);
    const int element = place % (kDV / 4) * 4;
    Sum sum;
    if (thread < places * lanes) {
#pragma unroll 4
      for (int i = lane; i < merge.count; i += lanes) {
        const float* partial = args.partials + merge.first.offset + i * merge.stride;
        const float m = __ldcg(partial + row);
        const float l = __ldcg(partial + padded_rows + row);
        const float4 o = __ldcg(reinterpret_cast<const float4*>(
            partial + 2 * padded_rows + static_cast<std::int64_t>(row) * kDV + element));
        sum.add(m, l, o);
      }
      sums[thread] = sum;
    }
    __syncthreads();
    if (thread < places) {
      for (int i = 1; i < lanes; ++i) {
        const Sum& other = sums[thread + i * places];
        sum.add(other.m, other.l, other.o);
      }
      const int item_row = merge.row_begin + row;
      const int token = item_row / merge.heads;
      const int head = item_row % merge.heads;
      const float inverse = sum.l > 0 ? 1 / sum.l : 0;
      const std::int64_t at = merge.out + token * args.out_token_stride +
                              head * args.out_head_stride + element;
      const float4 o = {sum.o.x * inverse, sum.o.y * inverse, sum.o.z * inverse, sum.o.w * inverse};
      if (args.out_type == OutType::kFp32) {
        *reinterpret_cast<float4*>(static_cast<float*>(args.out) + at) = o;
      } else if (args.out_type == OutType::kBf16) {
        *reinterpret_cast<uint2*>(static_cast<std::uint16_t*>(args.out) + at) = {
            pack<true>(o.x, o.y), pack<true>(o.z, o.w)};
      } else {
        *reinterpret_cast<uint2*>(static_cast<std::uint16_t*>(args.out) + at) = {
            pack<false>(o.x, o.y), pack<false>(o.z, o.w)};
      }
      if (element == 0) {
        args.lse[merge.lse + token * args.lse_token_stride + head * args.lse_head_stride] =
            sum.l > 0 ? (sum.m + __log2f(sum.l)) * 0.693147180559945309f : INFINITY;
      }
    }
    __syncthreads();
  }
  if (threadIdx.x == 0) {
    const unsigned done = atomicAdd(args.counters + 2 * index + 1, 1u);
    if (done == static_cast<unsigned>(merge.blocks) - 1) {
      args.counters[2 * index] = 0;
      args.counters[2 * index + 1] = 0;
    }
  }
}

}  // namespace mla::kernels::cuda::m16
