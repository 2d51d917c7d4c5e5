#pragma once

#include <type_traits>

#include "kernels/cuda/results.cuh"
#include "kernels/cuda/simt/gpu.h"
#include "kernels/cuda/simt/tile.h"

// One part: some query rows times a run of keys, 64 keys at a time:
//
//   scores   a thread has thread_rows x 8 of them, and of each dot product the elements of its
//   lane:
//            8 of every 64. Eight lanes add up what they have.
//   weights  online softmax, 8 threads to a row, in shared memory
//   outputs  a thread has thread_rows x thread_dims of them, in registers for the whole part
//
// Queries and cache rows are read where they lie; the hardware's caches serve the groups of rows.

namespace mla::kernels::cuda::simt {

/// What a thread needs of the operator besides `DecodeArgs`.
struct SimtArgs {
  DecodeArgs decode;
  /// Bytes that all strides of the cache are multiples of, so that 32 bits tell a row's place.
  std::uint32_t row_unit = 16;
  std::uint32_t q_unit =
      16;  ///< bytes, likewise; a variable, so that addresses take one instruction
};

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

/// A block's shared memory.
struct Shared {
  float* scores;            ///< [kStepTokens, score_stride]; then weights
  std::uint32_t* places;    ///< [2, kStepTokens] cache rows of this and the next step, in row_units
  std::uint32_t* q_places;  ///< [rows] in q_units behind the part's first query
  float* shrink;            ///< [rows] what earlier sums are multiplied by
  float* m;                 ///< [rows] once the part is done
  float* l;

  __device__ Shared(float* memory, int rows, int score_stride)
      : scores(memory),
        places(reinterpret_cast<std::uint32_t*>(scores + kStepTokens * score_stride)),
        q_places(places + 2 * kStepTokens),
        shrink(reinterpret_cast<float*>(q_places + rows)),
        m(shrink + rows),
        l(m + rows) {}
};

/// A thread's share of a part.
template <int kRows, int kDims, bool kBf16>
class PartWorker {
 public:
  __device__ PartWorker(const SimtArgs& args, const Part& part, float* shared)
      : args_(args),
        part_(part),
        rows_(kRows * static_cast<int>(blockDim.x) / kGroupThreads),
        stride_(rows_ + 4),
        shared_(shared, rows_, stride_),
        group_row_(static_cast<int>(threadIdx.x) / kGroupThreads * kRows),
        lane_(static_cast<int>(threadIdx.x) % kGroupThreads) {}

  /// Computes elements [window, window + 64 kDims) of the outputs of all rows.
  __device__ void run(int window) {
    float o[kRows][kDims] = {};
    SoftmaxRow row;
    if (part_.token_begin < part_.token_end) {
      write_q_places();
      write_places(part_.token_begin, page_of(part_.token_begin), 0);
    }
    __syncthreads();
    int buffer = 0;
    for (int begin = part_.token_begin; begin < part_.token_end; begin += kStepTokens) {
      const std::int32_t next_page = page_of(begin + kStepTokens);
      const std::uint32_t* places = shared_.places + buffer * kStepTokens;
      if (group_row_ < part_.rows) compute_scores(places);
      write_places(begin + kStepTokens, next_page, buffer ^ 1);
      __syncthreads();
      weigh(begin, row);
      __syncthreads();
      prefetch_step(begin + kStepTokens, buffer ^ 1);
      if (group_row_ < part_.rows && window + kDims * lane_ < args_.decode.d_v) {
        add_values(places, window + kDims * lane_, min(kStepTokens, part_.token_end - begin),
                   is_masked(begin), o);
      }
      __syncthreads();
      buffer ^= 1;
    }
    finish(window, row, o);
  }

 private:
  /// Keys whose scores a thread has.
  static constexpr int kKeys = kStepTokens * kDotLanes / kGroupThreads;
  /// Whether there are registers for factors that are not needed yet.
  static constexpr bool kLoadAhead = kRows == 8;

  /// m and l of the row that 8 threads weigh together.
  struct SoftmaxRow {
    float m = kEmptyM;
    float l = 0.0F;
  };

  /// This thread's token of the step from `begin` on; the part's last where there are no more, so
  /// that all rows that a step names can be read. Their weights are 0.
  __device__ __forceinline__ int token_of(int begin) const {
    return min(begin + static_cast<int>(threadIdx.x), part_.token_end - 1);
  }

  __device__ __forceinline__ std::int32_t page_of(int begin) const {
    if (threadIdx.x >= kStepTokens) return 0;
    const int block = token_of(begin) / static_cast<int>(args_.decode.page_block_size);
    return args_.decode.block_tables[part_.block_table + block];
  }

  /// Says where the rows of the step from `begin` on lie.
  __device__ __forceinline__ void write_places(int begin, std::int32_t page, int buffer) {
    if (threadIdx.x >= kStepTokens) return;
    const DecodeArgs& args = args_.decode;
    const int slot = token_of(begin) % static_cast<int>(args.page_block_size);
    const std::int64_t element =
        page * args.page_stride + slot * args.token_stride + part_.kv_head * args.kv_head_stride;
    shared_.places[buffer * kStepTokens + threadIdx.x] =
        static_cast<std::uint32_t>(2 * element / args_.row_unit);
  }

  /// Rows that the part does not have read the last one that it has.
  __device__ __forceinline__ void write_q_places() {
    if (static_cast<int>(threadIdx.x) >= rows_) return;
    const DecodeArgs& args = args_.decode;
    const int row = part_.row_begin + min(static_cast<int>(threadIdx.x), part_.rows - 1);
    const std::int64_t element =
        row / part_.heads * args.q_token_stride + row % part_.heads * args.q_head_stride;
    shared_.q_places[threadIdx.x] = static_cast<std::uint32_t>(2 * element / args_.q_unit);
  }

  /// Element `d` of the cache row at `place`.
  __device__ __forceinline__ const char* cache_at(std::uint32_t place, int d) const {
    return reinterpret_cast<const char*>(args_.decode.kv + d) +
           static_cast<std::uint64_t>(place) * args_.row_unit;
  }

  __device__ __forceinline__ void prefetch_step(int begin, int buffer) const {
    constexpr int kLine = 64;  // elements
    const std::uint32_t place = shared_.places[buffer * kStepTokens + threadIdx.x % kStepTokens];
    if (begin >= part_.token_end) return;
    const int stride = static_cast<int>(blockDim.x) / kStepTokens;
    for (int line = static_cast<int>(threadIdx.x) / kStepTokens; line * kLine < args_.decode.d_qk;
         line += stride) {
      gpu::prefetch(cache_at(place, line * kLine));
    }
  }

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
          rows.q + byte + static_cast<std::uint64_t>(rows.q_places[i]) * args_.q_unit);
    }
#pragma unroll
    for (int key = 0; key < kKeys; ++key) {
      factors.k[key] = *reinterpret_cast<const Four*>(
          rows.k + byte + static_cast<std::uint64_t>(rows.k_places[key]) * args_.row_unit);
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

  /// scores <- the dot products of this group's rows with the step's keys. Each half of a lane's
  /// elements is on its way while the half before it is multiplied.
  __device__ __forceinline__ void compute_scores(const std::uint32_t* places) {
    constexpr int kHalf = kDotElements;                    // bytes
    constexpr int kStride = 2 * kDotElements * kDotLanes;  // bytes
    const int dot_lane = lane_ % kDotLanes;
    const int first_key = lane_ / kDotLanes * kKeys;
    FactorRows rows;
    rows.q = reinterpret_cast<const char*>(args_.decode.q + part_.q + kDotElements * dot_lane);
    rows.k = reinterpret_cast<const char*>(args_.decode.kv + kDotElements * dot_lane);
#pragma unroll
    for (int i = 0; i < kRows; ++i) rows.q_places[i] = shared_.q_places[group_row_ + i];
#pragma unroll
    for (int key = 0; key < kKeys; ++key) rows.k_places[key] = places[first_key + key];

    const int chunks = (args_.decode.d_qk / kDotElements - dot_lane + kDotLanes - 1) / kDotLanes;
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
    float* to = shared_.scores + (first_key + dot_lane) * stride_ + group_row_;
#pragma unroll
    for (int i = 0; i < kRows; i += 4) {
      *reinterpret_cast<float4*>(to + i) = {sums[i][0], sums[i + 1][0], sums[i + 2][0],
                                            sums[i + 3][0]};
    }
  }

  /// Adds the sums of 8 lanes; the total of key i ends up as key 0 of lane i.
  template <int kHalf = kDotLanes / 2>
  __device__ __forceinline__ void add_up(float (&sums)[kRows][kKeys]) const {
    static_assert(kKeys == kDotLanes);
    const bool upper = (lane_ & kHalf) != 0;
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

  /// The end of the keys that row `row` of the part sees.
  __device__ __forceinline__ int visible_end(int row) const {
    const int later =
        args_.decode.causal ? part_.query_len - 1 - (part_.row_begin + row) / part_.heads : 0;
    return min(part_.token_end, part_.context_len - later);
  }

  /// scores -> weights; brings m and l up to date. Eight threads have a row, each every eighth key.
  __device__ __forceinline__ void weigh(int begin, SoftmaxRow& state) {
    const int row = static_cast<int>(threadIdx.x) / 8;
    const int first_key = static_cast<int>(threadIdx.x) % 8;
    if (row >= rows_) return;
    const int visible = visible_end(min(row, part_.rows - 1)) - begin;
    float scores[kKeys];
    float m = state.m;
#pragma unroll
    for (int i = 0; i < kKeys; ++i) {
      const int key = first_key + 8 * i;
      const float score = gpu::mul(shared_.scores[key * stride_ + row], args_.decode.scale_log2);
      scores[i] = key < visible ? score : kEmptyM;
      m = fmaxf(m, scores[i]);
    }
#pragma unroll
    for (int mask = 4; mask > 0; mask /= 2) m = fmaxf(m, gpu::shuffle_xor(m, mask, 8));
    const float base = m == kEmptyM ? 0.0F : m;
    float sum = 0.0F;
#pragma unroll
    for (int i = 0; i < kKeys; ++i) {
      const float weight = gpu::exp2(gpu::add(scores[i], -base));
      shared_.scores[(first_key + 8 * i) * stride_ + row] = weight;
      sum = gpu::add(sum, weight);
    }
#pragma unroll
    for (int mask = 4; mask > 0; mask /= 2) sum = gpu::add(sum, gpu::shuffle_xor(sum, mask, 8));
    const float shrink = gpu::exp2(gpu::add(state.m, -base));
    state.m = m;
    state.l = gpu::fma(state.l, shrink, sum);
    if (first_key == 0) shared_.shrink[row] = shrink;
  }

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
      values.keys[key] = *reinterpret_cast<const Packed*>(cache_at(rows[key], element));
    }
  }

  /// Whether the step from `begin` on has keys that only later queries of the request see.
  __device__ __forceinline__ bool is_masked(int begin) const {
    return args_.decode.causal && part_.query_len > 1 &&
           begin + kStepTokens > part_.context_len - (part_.query_len - 1);
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
        const float4 four = *reinterpret_cast<const float4*>(weights + key * stride_ + i);
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

  /// o <- shrink o + weights V. Each batch of values is on its way while the one before it is
  /// added.
  __device__ __forceinline__ void add_values(const std::uint32_t* places, int element, int tokens,
                                             bool masked, float (&o)[kRows][kDims]) const {
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      const float shrink = shared_.shrink[group_row_ + i];
#pragma unroll
      for (int d = 0; d < kDims; ++d) o[i][d] = gpu::mul(o[i][d], shrink);
    }
    const float* weights = shared_.scores + group_row_;
    Values even;
    load(places, element, even);
    if (masked) {
#pragma unroll 1
      for (int key = 0; key < tokens; key += kBatch) {
        load(places + key, element, even);
        add_batch<true>(weights + key * stride_, even, o);
      }
      return;
    }
    Values odd;
#pragma unroll 1
    for (int key = 0; key < tokens; key += 2 * kBatch) {
      load(places + key + kBatch, element, odd);
      add_batch<false>(weights + key * stride_, even, o);
      if (key + 2 * kBatch < tokens) load(places + key + 2 * kBatch, element, even);
      add_batch<false>(weights + (key + kBatch) * stride_, odd, o);
    }
  }

  /// Writes results or the partial.
  __device__ __forceinline__ void finish(int window, const SoftmaxRow& state,
                                         const float (&o)[kRows][kDims]) {
    const auto results = results_of(args_.decode, part_);
    const int softmax_row = static_cast<int>(threadIdx.x) / 8;
    if (threadIdx.x % 8 == 0 && softmax_row < rows_) {
      const float m = state.l == state.l ? state.m : state.l;  // the maximum overlooks a NaN
      shared_.m[softmax_row] = m;
      shared_.l[softmax_row] = state.l;
      if (window == 0 && softmax_row < part_.rows) results.store_row(softmax_row, m, state.l);
    }
    __syncthreads();
    const int d = window + kDims * lane_;
    if (d < args_.decode.d_v) {
#pragma unroll
      for (int i = 0; i < kRows; ++i) {
        const int row = group_row_ + i;
        if (row >= part_.rows) continue;
#pragma unroll
        for (int j = 0; j < kDims; j += 4) {
          results.store(row, d + j, {o[i][j], o[i][j + 1], o[i][j + 2], o[i][j + 3]},
                        shared_.m[row], shared_.l[row]);
        }
      }
    }
    __syncthreads();
  }

  const SimtArgs& args_;
  const Part& part_;
  int rows_;
  int stride_;
  Shared shared_;
  int group_row_;  ///< the first row of this thread's group
  int lane_;       ///< in the group
};

/// Block t does the parts of team t.
template <int kRows, int kDims, bool kBf16>
__global__ void __launch_bounds__(2 * kGroupThreads, kRows == 8 ? 2 : 3)
    decode_parts(const MLA_GRID_CONSTANT SimtArgs args) {
  extern __shared__ float4 shared[];
  for (std::int32_t next = static_cast<std::int32_t>(blockIdx.x); next >= 0;) {
    const Part& part = args.decode.parts[next];
    next = part.next;
    if (part.rows == 0) continue;
    PartWorker<kRows, kDims, kBf16> worker(args, part, reinterpret_cast<float*>(shared));
    for (int window = 0; window < args.decode.d_v; window += kGroupThreads * kDims) {
      worker.run(window);
    }
  }
}

}  // namespace mla::kernels::cuda::simt
