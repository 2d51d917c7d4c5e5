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

/// What belongs to row `row` of a part or a merge as a whole. Shorter than `RowResults::store_row`:
/// the bits of fast plans are not the CPU's.
template <class Rows>
__device__ __forceinline__ void store_row(const RowResults<Rows>& results, int row, float m,
                                          float l) {
  constexpr float kLn2 = 0.693147181F;
  if (!results.final()) {
    results.store_row(row, m, l);
  } else {
    const Rows& rows = results.rows;
    results.args.lse[lse_offset(results.args, rows.lse, rows.heads, rows.row_begin + row)] =
        m == -INFINITY ? INFINITY : (m + __log2f(l)) * kLn2;
  }
}

/// Writes one side's half of a part's rows: a partial, or their results. The sums go through the
/// place of the queries, so that lanes which write at the same time have elements side by side.
/// The code is short, not fast: it is run once in a long while and has to be fetched each time.
template <bool kBf16, int kSlabs>
struct Writer {
  static constexpr int kOut = (kSlabs - 1) / 2 * 32;  // sums of a thread
  static constexpr int kHalfRow = 2 * kOut;           // elements
  // Bytes of a staged row; rows begin in different banks. A warp has 16 rows, for which there is
  // room in 16 bits; of those in 32 bits it stages 8 at a time.
  static constexpr int kPackedRow = kHalfRow * 2 + 16;
  static constexpr int kFullRow = kHalfRow * 4 + 32;
  static constexpr int kWarpBytes = 16 * kPackedRow;
  static_assert(8 * kFullRow == kWarpBytes && 8 * kWarpBytes <= sizeof(Memory<kSlabs>::q));

  Memory<kSlabs>& shared;
  const DecodeArgs& args;
  const int half;
  const int thread = late_thread_index() % kGroup;
  const int lane = thread % 32;
  const int first = thread / 32 * 16;  // row of the warp
  std::uint8_t* const staged = shared.q[0] + (half * 4 + thread / 32) * kWarpBytes;

  __device__ Writer(Memory<kSlabs>& s, const DecodeArgs& a, int h) : shared(s), args(a), half(h) {}

  __device__ void write(const Work& work, const float (&o)[kOut], const RowState& rows) const {
    const int row = first + lane / 4;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const float sum = sum_of_row(rows.l.of[r]);
      if (lane % 4 == 0) shared.l[half][row + 8 * r] = sum;
    }
    sync_threads(kAll, kConsumers);
    const auto results = results_of(args, work.part);
    RowPair scale;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const int mine = row + 8 * r;
      const float l = shared.l[0][mine] + shared.l[1][mine];
      const float m = RowState::maximum_of(rows.m.of[r], l);
      scale.of[r] = results.final() ? normalizer(m, l) : 1;
      if (half == r && lane % 4 == 0 && mine < work.rows) {
        store_row(results, work.row_begin + mine, m, l);
      }
    }
    if (results.final() && args.out_type != OutType::kFp32) {
      write_packed(work, o, scale);
    } else {
#pragma unroll
      for (int r = 0; r < 2; ++r) write_full(work, o, r, scale.of[r]);
    }
    sync_threads(kAll, kConsumers);
  }

  /// Results of 16 bits.
  __device__ void write_packed(const Work& work, const float (&o)[kOut],
                               const RowPair& scale) const {
    const std::uint32_t to = shared_address(staged) + lane % 16 * kPackedRow + lane / 16 * 16;
#pragma unroll
    for (int j = 0; j < kOut / 8; ++j) {
      std::uint32_t packed[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int at = 8 * j + 2 * i;
        packed[i] = pack<kBf16>(o[at] * scale.of[i % 2], o[at + 1] * scale.of[i % 2]);
      }
      store_matrices(to + j * 32, packed);
    }
    __syncwarp();
    const Part& part = work.part;
    auto* const out = static_cast<std::uint16_t*>(args.out) + half * kHalfRow + 4 * lane;
    const std::int64_t mine =
        out_offset(args, part.out, part.heads, part.row_begin + work.row_begin + first + lane % 16);
    const int count = min(16, work.rows - first);
#pragma unroll 4
    for (int i = 0; i < count; ++i) {
      const auto* const from = reinterpret_cast<const uint2*>(staged + i * kPackedRow) + lane;
      std::uint16_t* const row = out + __shfl_sync(~0U, mine, i);
#pragma unroll
      for (int e = 0; e < kHalfRow; e += 128) *reinterpret_cast<uint2*>(row + e) = from[e / 4];
    }
  }

  /// Results of 32 bits or sums: the rows lane / 4 + 8 r.
  __device__ void write_full(const Work& work, const float (&o)[kOut], int r, float scale) const {
    __syncwarp();
    auto* const to = reinterpret_cast<float2*>(staged + lane / 4 * kFullRow) + lane % 4;
#pragma unroll
    for (int j = 0; j < kOut / 4; ++j) to[4 * j] = float2{o[4 * j + 2 * r], o[4 * j + 2 * r + 1]};
    __syncwarp();
    const Part& part = work.part;
    const int at = work.row_begin + first + 8 * r + lane % 8;  // a row each of eight lanes
    const bool is_final = results_of(args, part).final();
    float* const rows = is_final ? static_cast<float*>(args.out) : partial_of(args, part.partial).o;
    const std::int64_t mine = is_final ? out_offset(args, part.out, part.heads, part.row_begin + at)
                                       : static_cast<std::int64_t>(at) * args.d_v;
    const int count = min(8, work.rows - first - 8 * r);
#pragma unroll 4
    for (int i = 0; i < count; ++i) {
      const auto* const from = reinterpret_cast<const float4*>(staged + i * kFullRow) + lane;
      float* const row = rows + __shfl_sync(~0U, mine, i) + half * kHalfRow + 4 * lane;
      const float x = __shfl_sync(~0U, scale, 4 * i);
#pragma unroll
      for (int e = 0; e < kHalfRow; e += 128) {
        const float4 sum = from[e / 4];
        __stcg(reinterpret_cast<float4*>(row + e), {sum.x * x, sum.y * x, sum.z * x, sum.w * x});
      }
    }
  }
};

}  // namespace mla::kernels::cuda::sm90::seesaw
