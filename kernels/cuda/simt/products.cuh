#pragma once

#include <type_traits>

#include "kernels/cuda/simt/part.cuh"

// What one thread multiplies of the keys and of the values of a step. Queries and cache rows are
// read where they lie; the hardware's caches serve the groups of rows.

namespace mla::kernels::cuda::simt {

/// Eight 16-bit elements, as they lie in memory.
struct alignas(16) Eight {
  std::uint32_t pairs[4];
};
/// Four of them.
struct alignas(8) Four {
  std::uint32_t pairs[2];
};

template <bool kBf16>
__device__ __forceinline__ float2 widen(std::uint32_t pair) {
  if constexpr (kBf16) {
    return {__uint_as_float(pair << 16), __uint_as_float(pair & 0xffff0000U)};
  } else {
    return gpu::widen_fp16(pair);
  }
}

/// Keys whose scores a thread has.
inline constexpr int kThreadKeys = kStepTokens * kDotLanes / kGroupThreads;

/// Of the dot products of a group's rows with its keys, the elements of this thread's lane.
template <int kRows, bool kBf16>
class ScoreProducts {
 public:
  explicit __device__ ScoreProducts(const PartThread& thread) : thread_(thread) {}

  /// scores <- the dot products of this group's rows with the step's keys. Each half of a lane's
  /// elements is on its way while the half before it is multiplied.
  __device__ __forceinline__ void compute(const std::uint32_t* places) {
    constexpr int kHalf = kDotElements;                    // bytes
    constexpr int kStride = 2 * kDotElements * kDotLanes;  // bytes
    const int dot_lane = thread_.lane % kDotLanes;
    const int first_key = thread_.lane / kDotLanes * kKeys;
    FactorRows rows;
    rows.q = reinterpret_cast<const char*>(thread_.args.decode.q + thread_.part.q +
                                           kDotElements * dot_lane);
    rows.k = reinterpret_cast<const char*>(thread_.args.decode.kv + kDotElements * dot_lane);
#pragma unroll
    for (int i = 0; i < kRows; ++i)
      rows.q_places[i] = thread_.shared.q_places[thread_.group_row + i];
#pragma unroll
    for (int key = 0; key < kKeys; ++key) rows.k_places[key] = places[first_key + key];

    const int chunks =
        (thread_.args.decode.d_qk / kDotElements - dot_lane + kDotLanes - 1) / kDotLanes;
    float sums[kRows][kKeys] = {};
    Factors low;
    Factors high;
    if (chunks > 0) load(rows, 0, low);
#pragma unroll 1
    for (int chunk = 0; chunk < chunks; ++chunk) {
      if constexpr (kLoadAhead) load(rows, kHalf, high);
      multiply(low, sums);
      if constexpr (!kLoadAhead) load(rows, kHalf, low);
      rows.q += kStride;
      rows.k += kStride;
      if (kLoadAhead && chunk + 1 < chunks) load(rows, 0, low);
      multiply(kLoadAhead ? high : low, sums);
      if (!kLoadAhead && chunk + 1 < chunks) load(rows, 0, low);
    }
    add_up(sums);
    float* to = thread_.shared.scores + (first_key + dot_lane) * thread_.stride + thread_.group_row;
#pragma unroll
    for (int i = 0; i < kRows; i += 4) {
      *reinterpret_cast<float4*>(to + i) = {sums[i][0], sums[i + 1][0], sums[i + 2][0],
                                            sums[i + 3][0]};
    }
  }

 private:
  static constexpr int kKeys = kThreadKeys;
  /// Whether there are registers for factors that are not needed yet.
  static constexpr bool kLoadAhead = kRows == 8;

  /// Four elements of the rows whose products a thread adds up.
  struct Factors {
    Four q[kRows];
    Four k[kKeys];
  };

  /// Where a thread finds its factors.
  struct FactorRows {
    const char* q;  ///< of the part, this lane's first elements
    const char* k;  ///< of the cache
    std::uint32_t q_places[kRows];
    std::uint32_t k_places[kKeys];
  };

  __device__ __forceinline__ void load(FactorRows& rows, int byte, Factors& factors) const {
#pragma unroll
    for (std::uint32_t& place : rows.q_places) gpu::forget(place);
#pragma unroll
    for (std::uint32_t& place : rows.k_places) gpu::forget(place);
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      factors.q[i] = *reinterpret_cast<const Four*>(
          rows.q + byte + static_cast<std::uint64_t>(rows.q_places[i]) * thread_.args.q_unit);
    }
#pragma unroll
    for (int key = 0; key < kKeys; ++key) {
      factors.k[key] = *reinterpret_cast<const Four*>(
          rows.k + byte + static_cast<std::uint64_t>(rows.k_places[key]) * thread_.args.row_unit);
    }
  }

  __device__ __forceinline__ void multiply(const Factors& factors,
                                           float (&sums)[kRows][kKeys]) const {
#pragma unroll
    for (int pair = 0; pair < 2; ++pair) {
      float2 q[kRows];
#pragma unroll
      for (int i = 0; i < kRows; ++i) q[i] = widen<kBf16>(factors.q[i].pairs[pair]);
#pragma unroll
      for (int key = 0; key < kKeys; ++key) {
        const float2 k = widen<kBf16>(factors.k[key].pairs[pair]);
#pragma unroll
        for (int i = 0; i < kRows; ++i) {
          sums[i][key] = gpu::fma(q[i].x, k.x, sums[i][key]);
          sums[i][key] = gpu::fma(q[i].y, k.y, sums[i][key]);
        }
      }
    }
  }

  /// Adds the sums of 8 lanes; the total of key i ends up as key 0 of lane i.
  template <int kHalf = kDotLanes / 2>
  __device__ __forceinline__ void add_up(float (&sums)[kRows][kKeys]) const {
    static_assert(kKeys == kDotLanes);
    const bool upper = (thread_.lane & kHalf) != 0;
#pragma unroll
    for (int key = 0; key < kHalf; ++key) {
#pragma unroll
      for (int i = 0; i < kRows; ++i) {
        const float first = sums[i][key];
        const float second = sums[i][key + kHalf];
        const float received = gpu::shuffle_xor(upper ? first : second, kHalf, kDotLanes);
        sums[i][key] = gpu::add(upper ? second : first, received);
      }
    }
    if constexpr (kHalf > 1) add_up<kHalf / 2>(sums);
  }

  const PartThread& thread_;
};

/// This thread's elements of the outputs of its group's rows.
template <int kRows, int kDims, bool kBf16>
class ValueProducts {
 public:
  explicit __device__ ValueProducts(const PartThread& thread) : thread_(thread) {}

  /// o <- shrink o + weights V. Each batch of values is on its way while the one before it is
  /// added.
  __device__ __forceinline__ void add(const std::uint32_t* places, int element, int tokens,
                                      bool masked, float (&o)[kRows][kDims]) const {
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      const float shrink = thread_.shared.shrink[thread_.group_row + i];
#pragma unroll
      for (int d = 0; d < kDims; ++d) o[i][d] = gpu::mul(o[i][d], shrink);
    }
    const float* weights = thread_.shared.scores + thread_.group_row;
    Values even;
    load(places, element, even);
    if (masked) {
#pragma unroll 1
      for (int key = 0; key < tokens; key += kBatch) {
        load(places + key, element, even);
        add_batch<true>(weights + key * thread_.stride, even, o);
      }
      return;
    }
    Values odd;
#pragma unroll 1
    for (int key = 0; key < tokens; key += 2 * kBatch) {
      load(places + key + kBatch, element, odd);
      add_batch<false>(weights + key * thread_.stride, even, o);
      if (key + 2 * kBatch < tokens) load(places + key + 2 * kBatch, element, even);
      add_batch<false>(weights + (key + kBatch) * thread_.stride, odd, o);
    }
  }

 private:
  /// This thread's elements of some cache rows.
  static constexpr int kBatch = 4;
  using Packed = std::conditional_t<kDims == 8, Eight, Four>;
  struct Values {
    Packed keys[kBatch];
  };

  __device__ __forceinline__ void load(const std::uint32_t* places, int element,
                                       Values& values) const {
    const uint4 four = *reinterpret_cast<const uint4*>(places);
    const std::uint32_t rows[kBatch] = {four.x, four.y, four.z, four.w};
#pragma unroll
    for (int key = 0; key < kBatch; ++key) {
      values.keys[key] = *reinterpret_cast<const Packed*>(thread_.cache_at(rows[key], element));
    }
  }

  /// o <- o + weights V for a few keys. Where some rows do not see all of them, these rows must not
  /// multiply by 0 either, since what they do not see may be NaN.
  template <bool kMasked>
  __device__ __forceinline__ void add_batch(const float* weights, const Values& values,
                                            float (&o)[kRows][kDims]) const {
#pragma unroll
    for (int key = 0; key < kBatch; ++key) {
      float weight[kRows];
#pragma unroll
      for (int i = 0; i < kRows; i += 4) {
        const float4 four = *reinterpret_cast<const float4*>(weights + key * thread_.stride + i);
        weight[i] = four.x;
        weight[i + 1] = four.y;
        weight[i + 2] = four.z;
        weight[i + 3] = four.w;
      }
#pragma unroll
      for (int d = 0; d < kDims; d += 2) {
        const float2 value = widen<kBf16>(values.keys[key].pairs[d / 2]);
#pragma unroll
        for (int i = 0; i < kRows; ++i) {
          if (kMasked && weight[i] == 0.0F) continue;
          o[i][d] = gpu::fma(weight[i], value.x, o[i][d]);
          o[i][d + 1] = gpu::fma(weight[i], value.y, o[i][d + 1]);
        }
      }
    }
  }

  const PartThread& thread_;
};

}  // namespace mla::kernels::cuda::simt
