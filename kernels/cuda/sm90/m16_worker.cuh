#pragma once

#include "kernels/cuda/sm90/m16_block.cuh"

namespace mla::kernels::cuda::sm90::m16 {

/// A thread that computes: where it is, and what it does with the others of its warp and group.
/// Products have keys or elements as rows and query rows as columns: a lane has four of those,
/// row_of(0..3).
struct Worker {
  // Named barriers: 1 and 2 are those inside the groups.
  static constexpr int kAll = 3;   ///< of all computing warps
  static constexpr int kTurn = 4;  ///< and 5: of the group whose turn comes

  std::uint32_t shared;
  int block;  ///< of the team
  int thread;
  int group;
  int warp;  ///< of the group
  int lane;

  __device__ __forceinline__ Worker(std::uint32_t shared_memory, int block_of_team)
      : shared(shared_memory), block(block_of_team) {
    thread = static_cast<int>(threadIdx.x);
    group = uniform(thread / kGroupThreads);
    warp = uniform(thread % kGroupThreads / 32);
    lane = thread % 32;
  }

  __device__ __forceinline__ int row_of(int i) const {
    return 2 * (lane % 4) + (i & 1) + (i >> 1) * 8;
  }
  /// Which of the lane's four rows accumulator element `i` of a product belongs to.
  static __device__ __forceinline__ constexpr int row_index(int i) {
    return (i & 1) | ((i >> 2) << 1);
  }

  /// Reduces four values, one for each of the lane's rows, over the eight lanes that have the same
  /// rows. Returns that of row `reduced_row()`: each step halves what is exchanged.
  template <class Reduce>
  __device__ __forceinline__ float over_lanes(const float (&x)[4], Reduce reduce) const {
    const bool upper = (lane & 16) != 0;
    const float a = exchange(upper ? x[0] : x[2], 16, upper ? x[2] : x[0], reduce);
    const float b = exchange(upper ? x[1] : x[3], 16, upper ? x[3] : x[1], reduce);
    const bool odd = (lane & 8) != 0;
    const float c = exchange(odd ? a : b, 8, odd ? b : a, reduce);
    return exchange(c, 4, c, reduce);
  }
  template <class Reduce>
  static __device__ __forceinline__ float exchange(float give, int distance, float keep,
                                                   Reduce reduce) {
    return reduce(keep, __shfl_xor_sync(0xFFFFFFFFu, give, distance));
  }
  __device__ __forceinline__ int reduced_row() const {
    return row_of((lane >> 4) * 2 + (lane >> 3 & 1));
  }

  __device__ __forceinline__ void group_barrier() const { sync_threads(1 + group, kGroupThreads); }
  static __device__ __forceinline__ void barrier_of_block() { sync_threads(0, kThreads); }
  static __device__ __forceinline__ void arrive_at_barrier_of_block() {
    arrive_threads(0, kThreads);
  }
  static __device__ __forceinline__ void barrier_of_all() { sync_threads(kAll, kComputeThreads); }

  /// Makes the compiler compute nothing ahead that follows from where the thread is.
  __device__ __forceinline__ void forget() {
    asm volatile("" : "+r"(thread), "+r"(lane), "+r"(block));
  }

  template <class T>
  static __device__ __forceinline__ T* pointer(int offset) {
    extern __shared__ __align__(1024) char memory[];
    return reinterpret_cast<T*>(memory + offset);
  }
};

}  // namespace mla::kernels::cuda::sm90::m16
