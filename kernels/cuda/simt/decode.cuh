#pragma once

#include "kernels/cuda/simt/products.cuh"

// One part: some query rows times a run of keys, 64 keys at a time:
//
//   scores   a thread has thread_rows x 8 of them, and of each dot product the elements of its
//            lane: 8 of every 64. Eight lanes add up what they have.
//   weights  online softmax, 8 threads to a row, in shared memory
//   outputs  a thread has thread_rows x thread_dims of them, in registers for the whole part
//
// Both products are in products.cuh.

namespace mla::kernels::cuda::simt {

/// A thread's share of a part.
template <int kRows, int kDims, bool kBf16>
class PartWorker : private PartThread {
 public:
  __device__ PartWorker(const SimtArgs& a, const Part& p, float* memory)
      : PartThread(a, p, memory, kRows) {}

  /// Computes elements [window, window + 64 kDims) of the outputs of all rows.
  __device__ void run(int window) {
    float o[kRows][kDims] = {};
    SoftmaxRow row;
    if (part.token_begin < part.token_end) {
      write_q_places();
      write_places(part.token_begin, page_of(part.token_begin), 0);
    }
    __syncthreads();
    int buffer = 0;
    for (int begin = part.token_begin; begin < part.token_end; begin += kStepTokens) {
      const std::int32_t next_page = page_of(begin + kStepTokens);
      const std::uint32_t* places = shared.places + buffer * kStepTokens;
      if (group_row < part.rows) ScoreProducts<kRows, kBf16>(*this).compute(places);
      write_places(begin + kStepTokens, next_page, buffer ^ 1);
      __syncthreads();
      weigh(begin, row);
      __syncthreads();
      prefetch_step(begin + kStepTokens, buffer ^ 1);
      if (group_row < part.rows && window + kDims * lane < args.decode.d_v) {
        ValueProducts<kRows, kDims, kBf16>(*this).add(places, window + kDims * lane,
                                                      min(kStepTokens, part.token_end - begin),
                                                      is_masked(begin), o);
      }
      __syncthreads();
      buffer ^= 1;
    }
    finish(window, row, o);
  }

 private:
  /// m and l of the row that 8 threads weigh together.
  struct SoftmaxRow {
    float m = kEmptyM;
    float l = 0.0F;
  };

  /// This thread's token of the step from `begin` on; the part's last where there are no more, so
  /// that all rows that a step names can be read. Their weights are 0.
  __device__ __forceinline__ int token_of(int begin) const {
    return min(begin + static_cast<int>(threadIdx.x), part.token_end - 1);
  }

  __device__ __forceinline__ std::int32_t page_of(int begin) const {
    if (threadIdx.x >= kStepTokens) return 0;
    const int block = token_of(begin) / static_cast<int>(args.decode.page_block_size);
    return args.decode.block_tables[part.block_table + block];
  }

  /// Says where the rows of the step from `begin` on lie.
  __device__ __forceinline__ void write_places(int begin, std::int32_t page, int buffer) {
    if (threadIdx.x >= kStepTokens) return;
    const DecodeArgs& decode = args.decode;
    const int slot = token_of(begin) % static_cast<int>(decode.page_block_size);
    const std::int64_t element = page * decode.page_stride + slot * decode.token_stride +
                                 part.kv_head * decode.kv_head_stride;
    shared.places[buffer * kStepTokens + threadIdx.x] =
        static_cast<std::uint32_t>(2 * element / args.row_unit);
  }

  /// Rows that the part does not have read the last one that it has.
  __device__ __forceinline__ void write_q_places() {
    if (static_cast<int>(threadIdx.x) >= rows) return;
    const DecodeArgs& decode = args.decode;
    const int row = part.row_begin + min(static_cast<int>(threadIdx.x), part.rows - 1);
    const std::int64_t element =
        row / part.heads * decode.q_token_stride + row % part.heads * decode.q_head_stride;
    shared.q_places[threadIdx.x] = static_cast<std::uint32_t>(2 * element / args.q_unit);
  }

  __device__ __forceinline__ void prefetch_step(int begin, int buffer) const {
    constexpr int kLine = 64;  // elements
    const std::uint32_t place = shared.places[buffer * kStepTokens + threadIdx.x % kStepTokens];
    if (begin >= part.token_end) return;
    const int stride = static_cast<int>(blockDim.x) / kStepTokens;
    for (int line = static_cast<int>(threadIdx.x) / kStepTokens; line * kLine < args.decode.d_qk;
         line += stride) {
      gpu::prefetch(cache_at(place, line * kLine));
    }
  }

  /// The end of the keys that row `row` of the part sees.
  __device__ __forceinline__ int visible_end(int row) const {
    const int later =
        args.decode.causal ? part.query_len - 1 - (part.row_begin + row) / part.heads : 0;
    return min(part.token_end, part.context_len - later);
  }

  /// scores -> weights; brings m and l up to date. Eight threads have a row, each every eighth key.
  __device__ __forceinline__ void weigh(int begin, SoftmaxRow& state) {
    const int row = static_cast<int>(threadIdx.x) / 8;
    const int first_key = static_cast<int>(threadIdx.x) % 8;
    if (row >= rows) return;
    const int visible = visible_end(min(row, part.rows - 1)) - begin;
    float scores[kThreadKeys];
    float m = state.m;
#pragma unroll
    for (int i = 0; i < kThreadKeys; ++i) {
      const int key = first_key + 8 * i;
      const float score = gpu::mul(shared.scores[key * stride + row], args.decode.scale_log2);
      scores[i] = key < visible ? score : kEmptyM;
      m = fmaxf(m, scores[i]);
    }
#pragma unroll
    for (int mask = 4; mask > 0; mask /= 2) m = fmaxf(m, gpu::shuffle_xor(m, mask, 8));
    const float base = m == kEmptyM ? 0.0F : m;
    float sum = 0.0F;
#pragma unroll
    for (int i = 0; i < kThreadKeys; ++i) {
      const float weight = gpu::exp2(gpu::add(scores[i], -base));
      shared.scores[(first_key + 8 * i) * stride + row] = weight;
      sum = gpu::add(sum, weight);
    }
#pragma unroll
    for (int mask = 4; mask > 0; mask /= 2) sum = gpu::add(sum, gpu::shuffle_xor(sum, mask, 8));
    const float shrink = gpu::exp2(gpu::add(state.m, -base));
    state.m = m;
    state.l = gpu::fma(state.l, shrink, sum);
    if (first_key == 0) shared.shrink[row] = shrink;
  }

  /// Whether the step from `begin` on has keys that only later queries of the request see.
  __device__ __forceinline__ bool is_masked(int begin) const {
    return args.decode.causal && part.query_len > 1 &&
           begin + kStepTokens > part.context_len - (part.query_len - 1);
  }

  /// Writes results or the partial.
  __device__ __forceinline__ void finish(int window, const SoftmaxRow& state,
                                         const float (&o)[kRows][kDims]) {
    const auto results = results_of(args.decode, part);
    const int softmax_row = static_cast<int>(threadIdx.x) / 8;
    if (threadIdx.x % 8 == 0 && softmax_row < rows) {
      const float m = state.l == state.l ? state.m : state.l;  // the maximum overlooks a NaN
      shared.m[softmax_row] = m;
      shared.l[softmax_row] = state.l;
      if (window == 0 && softmax_row < part.rows) results.store_row(softmax_row, m, state.l);
    }
    __syncthreads();
    const int d = window + kDims * lane;
    if (d < args.decode.d_v) {
#pragma unroll
      for (int i = 0; i < kRows; ++i) {
        const int row = group_row + i;
        if (row >= part.rows) continue;
#pragma unroll
        for (int j = 0; j < kDims; j += 4) {
          results.store(row, d + j, {o[i][j], o[i][j + 1], o[i][j + 2], o[i][j + 3]}, shared.m[row],
                        shared.l[row]);
        }
      }
    }
    __syncthreads();
  }
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
