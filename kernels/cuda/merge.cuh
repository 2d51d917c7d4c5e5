#pragma once

#include "kernels/cuda/merge_exact.cuh"
#include "kernels/cuda/merge_fast.cuh"

// Merging of partials that several blocks of one launch, or of an earlier one, have written. A
// kernel whose blocks wait for each other does, for each share of its team,
//   wait_for_parts(...); merge_slice(...); finish_merge(...);
// and before that, for each of its parts that belongs to a merge, once its partial is written,
//   arrive_at_merge(...).
// Everywhere `barrier()` stands for a barrier of all threads that call, so that some warps of a
// block may do this alone.

namespace mla::kernels::cuda {

struct BlockBarrier {
  __device__ __forceinline__ void operator()() const { __syncthreads(); }
};

/// Makes what the calling threads wrote visible and raises the merge's counter of arrivals.
template <class Barrier = BlockBarrier>
__device__ __forceinline__ void arrive_at_merge(const DecodeArgs& args, int merge_index, int thread,
                                                Barrier barrier = {}) {
  __threadfence();
  barrier();
  if (thread == 0) atomicAdd(&args.counters[2 * merge_index], 1U);
}

/// Waits until `arrivals` blocks have arrived, so that their partials can be read with
/// `gpu::load_fresh`. All blocks must be resident.
template <class Barrier = BlockBarrier>
__device__ __forceinline__ void wait_for_parts(const DecodeArgs& args, int merge_index,
                                               std::uint32_t arrivals, int thread,
                                               Barrier barrier = {}) {
  if (thread == 0) {
    const volatile std::uint32_t* counter = &args.counters[2 * merge_index];
    while (*counter < arrivals) {
    }
    __threadfence();
  }
  barrier();
}

/// Says that this block has merged its slice; the last of the merge's blocks resets its counters.
template <class Barrier = BlockBarrier>
__device__ __forceinline__ void finish_merge(const DecodeArgs& args, int merge_index, int blocks,
                                             int thread, Barrier barrier = {}) {
  barrier();
  if (thread != 0) return;
  std::uint32_t* counters = &args.counters[2 * merge_index];
  if (atomicAdd(&counters[1], 1U) == static_cast<std::uint32_t>(blocks) - 1) {
    counters[0] = 0;
    counters[1] = 0;
  }
}

/// Merges slice `slice` of the merge's `blocks`: an even part of its rows' elements, in fours, over
/// all its partials. Exact runs give the bits of `merge_partials` along the canonical tree, others
/// a weighted sum in an order that the sizes alone decide.
/// @param thread   of `threads`, at most kMaxMergeThreads, all of which call
/// @param shared   kMergeSharedBytes, aligned to 16; the threads may reuse it after `barrier()`
template <class Barrier = BlockBarrier>
__device__ void merge_slice(const DecodeArgs& args, const Merge& merge, int slice, int thread,
                            int threads, void* shared, Barrier barrier = {}) {
  const Range elements = even_part(merge.rows * (args.d_v / 4), merge.blocks, slice);
  const MergeTeam team{thread, threads, static_cast<MergeScratch*>(shared)};
  if (args.exact) {
    merge_exact(args, merge, elements, team, barrier);
  } else {
    merge_fast(args, merge, elements, team, barrier);
  }
}

}  // namespace mla::kernels::cuda
