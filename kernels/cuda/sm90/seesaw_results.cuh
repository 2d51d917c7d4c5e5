#pragma once

#include "kernels/cuda/results.cuh"
#include "kernels/cuda/sm90/m64_rows.cuh"
#include "kernels/cuda/sm90/seesaw_block.cuh"

namespace mla::kernels::cuda::sm90::seesaw {

/// Elements [element, element + 4) of the output.
template <bool kBf16>
__device__ __forceinline__ void store_final(const DecodeArgs& args, std::int64_t element,
                                            const float4& x) {
  if (args.out_type == OutType::kFp32) {
    *reinterpret_cast<float4*>(static_cast<float*>(args.out) + element) = x;
  } else {
    *reinterpret_cast<uint2*>(static_cast<std::uint16_t*>(args.out) + element) =
        uint2{pack<kBf16>(x.x, x.y), pack<kBf16>(x.z, x.w)};
  }
}

/// What a row's sums are multiplied with; rows that saw no key give zeros.
__device__ __forceinline__ float normalizer(float m, float l) {
  return m == -INFINITY ? 0 : __fdividef(1, l);
}

/// Writes one side's half of a part's rows: a partial, or their results. The sums go through the
/// place of the queries, so that lanes which write at the same time have elements side by side.
/// The code is short, not fast: it is run once in a long while and has to be fetched each time.
template <bool kBf16, int kSlabs>
struct Writer {
  static constexpr int kOut = (kSlabs - 1) / 2 * 32;    // sums of a thread
  static constexpr int kHalfRow = 2 * kOut;             // elements
  static constexpr int kStagedRow = kHalfRow * 4 + 32;  // rows begin in different banks
  static_assert(8 * 8 * kStagedRow <= sizeof(Memory<kSlabs>::q));

  Memory<kSlabs>& shared;
  const DecodeArgs& args;
  const int half;
  const int thread = late_thread_index() % kGroup;
  const int lane = thread % 32;
  const int warp = thread / 32;
  std::uint8_t* const staged = shared.q[0] + (half * 4 + warp) * 8 * kStagedRow;

  __device__ Writer(Memory<kSlabs>& s, const DecodeArgs& a, int h) : shared(s), args(a), half(h) {}

  __device__ void write(const Work& work, const float (&o)[kOut], const RowState& rows) const {
    const int row = warp * 16 + lane / 4;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const float sum = sum_of_row(rows.l.of[r]);
      if (lane % 4 == 0) shared.l[half][row + 8 * r] = sum;
    }
    sync_threads(kAll, kConsumers);
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const int mine = row + 8 * r;
      const float l = shared.l[0][mine] + shared.l[1][mine];
      const float m = RowState::maximum_of(rows.m.of[r], l);
      const auto results = results_of(args, work.part);
      if (half == r && lane % 4 == 0 && mine < work.rows) {
        results.store_row(work.row_begin + mine, m, l);
      }
      const float scale = results.final() ? normalizer(m, l) : 1;
      __syncwarp();
      auto* const to = reinterpret_cast<float2*>(staged + lane / 4 * kStagedRow) + lane % 4;
#pragma unroll
      for (int j = 0; j < kOut / 4; ++j) {
        to[4 * j] = float2{o[4 * j + 2 * r] * scale, o[4 * j + 2 * r + 1] * scale};
      }
      __syncwarp();
      copy_out(work, warp * 16 + 8 * r, results.final());
    }
    sync_threads(kAll, kConsumers);
  }

  /// The staged rows, the first of which is row `first` of the block.
  __device__ void copy_out(const Work& work, int first, bool is_final) const {
    const Part& part = work.part;
    const int at = work.row_begin + first + lane % 8;  // a row each of eight lanes, to shuffle
    const std::int64_t mine = is_final ? out_offset(args, part.out, part.heads, part.row_begin + at)
                                       : static_cast<std::int64_t>(at) * args.d_v;
    const int count = min(8, work.rows - first);
    const auto for_each_four = [&](auto store) {
#pragma unroll 4
      for (int i = 0; i < count; ++i) {
        const std::int64_t element = __shfl_sync(~0U, mine, i) + half * kHalfRow + 4 * lane;
        const auto* const from = reinterpret_cast<const float4*>(staged + i * kStagedRow) + lane;
#pragma unroll
        for (int e = 0; e < kHalfRow; e += 128) store(element + e, from[e / 4]);
      }
    };
    if (!is_final) {
      float* const to = partial_of(args, part.partial).o;
      for_each_four(
          [&](std::int64_t e, const float4& x) { __stcg(reinterpret_cast<float4*>(to + e), x); });
    } else {
      for_each_four([&](std::int64_t e, const float4& x) { store_final<kBf16>(args, e, x); });
    }
  }
};

}  // namespace mla::kernels::cuda::sm90::seesaw
