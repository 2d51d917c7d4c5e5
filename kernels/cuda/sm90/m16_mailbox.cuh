#pragma once

#include "kernels/cuda/sm90/m16_block.cuh"

/// Partials that blocks send each other through global memory, in mailboxes of the plan. Every word
/// is its own flag: its last bit is the parity of the launch that wrote it, and every launch writes
/// every word of its mailboxes once. So a merge is one write and one read: no fence, no counter
/// that others wait for, nothing to reset.
namespace mla::kernels::cuda::sm90::m16 {

/// Teams that can share a row, at most.
inline constexpr int kMostSenders = 128;

/// One sender's partial. The sums lie as the accumulators have them: a place is four floats, rows r
/// and r + 1 of element e, then of e + 8; 16 elements of the 16 rows are 64 places. A block of the
/// team has a run of places, cut into even slices, each of which has m and l of all rows for
/// itself.
///
///   | places of block 0: slice 0, 1 ... | of block 1 ... | m, l of 16 rows for slice 0 | 1 ...
template <int kDV>
struct Mailbox {
  static constexpr int kPlaces = kDV * 4;

  float* begin;

  __device__ __forceinline__ float* sums(int place) const { return begin + place * 4; }
  /// @param slice counted over the blocks
  __device__ __forceinline__ float* stats(int slice) const {
    return begin + kPlaces * 4 + slice * (kRows * 2);
  }
};

/// The first of the two rows that a place has.
__device__ __forceinline__ int row_of_place(int place) {
  return 2 * (place % 4) + place / 32 % 2 * 8;
}

/// What one launch marks its words with.
class Postmark {
 public:
  Postmark() = default;
  /// @param launches of the plan before this one
  explicit __device__ __forceinline__ Postmark(std::uint32_t launches) {
    asm volatile("" : "+r"(launches));  // not before it is needed: it has to come from memory
    bit_ = 1 - launches % 2;
    mask_ = 0 - bit_;
  }

  __device__ __forceinline__ void send(float* to, float4 x) const {
    post(to, make_float4(marked(x.x), marked(x.y), marked(x.z), marked(x.w)));
  }
  __device__ __forceinline__ void send(float* to, float2 x) const {
    post(to, make_float2(marked(x.x), marked(x.y)));
  }
  __device__ __forceinline__ bool has_come(float4 x) const {
    const std::uint32_t differ = (__float_as_uint(x.x) ^ mask_) | (__float_as_uint(x.y) ^ mask_) |
                                 (__float_as_uint(x.z) ^ mask_) | (__float_as_uint(x.w) ^ mask_);
    return (differ & 1) == 0;
  }
  /// Zeros that have come.
  __device__ __forceinline__ float4 empty() const {
    const float zero = __uint_as_float(bit_);
    return make_float4(zero, zero, zero, zero);
  }
  /// Infinity becomes itself again.
  static __device__ __forceinline__ float4 open(float4 x) {
    return make_float4(opened(x.x), opened(x.y), opened(x.z), opened(x.w));
  }

 private:
  __device__ __forceinline__ float marked(float x) const {
    return __uint_as_float((__float_as_uint(x) & ~1u) | bit_);
  }
  static __device__ __forceinline__ float opened(float x) {
    return __uint_as_float(__float_as_uint(x) & ~1u);
  }

  std::uint32_t bit_ = 0;
  std::uint32_t mask_ = 0;
};

}  // namespace mla::kernels::cuda::sm90::m16
