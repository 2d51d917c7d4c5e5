#pragma once

#include "kernels/cuda/decode_args.h"
#include "kernels/cuda/sm90/m16_block.cuh"

/// Merging over teams, through global memory. One trip for m, l and o together, and a sum that
/// corrects itself whenever it meets a larger m: fewer waits than with weights made first, which is
/// what counts for a slice of a few kilobytes.
namespace mla::kernels::cuda::sm90::m16 {

/// Four elements of some partials' sum.
struct Sum {
  float m = -INFINITY;
  float l = 0;
  float4 o = {0, 0, 0, 0};

  __device__ __forceinline__ void add(const Sum& other) {
    const float new_m = fmaxf(m, other.m);
    const float mine = exp2_fast(m - base_of(new_m));
    const float its = exp2_fast(other.m - base_of(new_m));
    m = new_m;
    l = l * mine + other.l * its;
    o.x = o.x * mine + other.o.x * its;
    o.y = o.y * mine + other.o.y * its;
    o.z = o.z * mine + other.o.z * its;
    o.w = o.w * mine + other.o.w * its;
  }
};

/// Reads what the team must know of its merges while there is time.
__device__ __forceinline__ void read_merges(const DecodeArgs& args, int team, TeamMerges& to) {
  to.begin = args.share_offsets[team];
  to.end = args.share_offsets[team + 1];
  if (to.begin == to.end) return;
  to.share = args.shares[to.begin];
  to.merge = args.merges[to.share.merge];
}

/// Says that this block has seen all partials; the last of the merge's blocks resets its counters.
__device__ __forceinline__ void leave_counters(std::uint32_t* counters, int blocks) {
  if (atomicAdd(counters + 1, 1u) == static_cast<std::uint32_t>(blocks) - 1) {
    counters[0] = 0;
    counters[1] = 0;
  }
}

/// Waits until all parts of the merge have left their partials. One thread calls.
__device__ __forceinline__ void wait_for_partials(const std::uint32_t* counter, int arrivals) {
  std::uint32_t arrived;
  do {
    asm volatile("ld.acquire.gpu.u32 %0, [%1];" : "=r"(arrived) : "l"(counter) : "memory");
  } while (arrived < static_cast<std::uint32_t>(arrivals));
}

/// The block's slice of a merge, over all its partials; `memory` has room for a Sum per thread. All
/// threads call.
template <int kDV>
__device__ __forceinline__ void merge_share(const DecodeArgs& args, const Merge& merge, int index,
                                            int slice, int blocks_per_team, char* memory) {
  constexpr int kWidth = kDV / 4;
  constexpr int kSharers = kComputeThreads;
  const int thread = static_cast<int>(threadIdx.x);
  const int count = merge.count;
  const int rows = merge.rows;
  const int blocks = merge.blocks;
  const std::int64_t stride = merge.stride;
  const float* first = args.partials + merge.first.offset;
  const int padded_rows = (rows + 15) / 16 * 16;
  const int begin = rows * kWidth * slice / blocks;
  const int end = rows * kWidth * (slice + 1) / blocks;
  if (thread == 0) wait_for_partials(args.counters + 2 * index, count * blocks_per_team);
  __syncthreads();
  if (thread == kSharers) leave_counters(args.counters + 2 * index, blocks);

  auto* sums = reinterpret_cast<Sum*>(memory);
  for (int from = begin; from < end; from += kSharers) {
    const int places = min(kSharers, end - from);
    const int sharers = min(kSharers / places, count);
    const int sharer = thread / places;
    const int place = from + thread % places;
    const int row = place / kWidth;
    const int element = place % kWidth * 4;
    Sum sum;
    if (sharer < sharers) {
#pragma unroll 4
      for (int i = sharer; i < count; i += sharers) {
        const float* partial = first + i * stride;
        sum.add({__ldcg(partial + row), __ldcg(partial + padded_rows + row),
                 __ldcg(reinterpret_cast<const float4*>(
                     partial + 2 * padded_rows + static_cast<std::int64_t>(row) * kDV + element))});
      }
      sums[thread] = sum;
    }
    __syncthreads();
    if (thread < places) {
      for (int i = 1; i < sharers; ++i) sum.add(sums[thread + i * places]);
      const int item_row = merge.row_begin + row;
      const int token = item_row / merge.heads;
      const int head = item_row - token * merge.heads;
      const std::int64_t out =
          merge.out + token * args.out_token_stride + head * args.out_head_stride;
      const int size = args.out_type == OutType::kFp32 ? 4 : 2;
      const float scale = inverse_of(sum.l);
      write_elements(args.out_type, static_cast<char*>(args.out) + out * size, element,
                     {sum.o.x * scale, sum.o.y * scale, sum.o.z * scale, sum.o.w * scale});
      if (element == 0) {
        args.lse[merge.lse + token * args.lse_token_stride + head * args.lse_head_stride] =
            lse_of(sum.m, sum.l);
      }
    }
    __syncthreads();
  }
}

}  // namespace mla::kernels::cuda::sm90::m16
