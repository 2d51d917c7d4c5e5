#pragma once

#include "kernels/cuda/merge.cuh"
#include "kernels/cuda/sm90/seesaw_results.cuh"

namespace mla::kernels::cuda::sm90::seesaw {

struct ConsumerBarrier {
  __device__ void operator()() const { sync_threads(kAll, kConsumers); }
};

/// Rows whose merging begins at a time.
constexpr int kSliceRows = 16;

/// Merges slices of fast plans into results. All partials of some elements come to shared memory at
/// once, by bulk copies: several merges wait for one trip to memory each, not for one per few
/// loads.
template <bool kBf16, int kSlabs>
struct Merger {
  static constexpr int kWarps = kConsumers / 32;
  static constexpr int kStaged = static_cast<int>(sizeof(Memory<kSlabs>::keys) / sizeof(float4));
  static constexpr int kWidth = (kSlabs - 1) * 16;  // fours of a row
  static constexpr int kLaneLoads = (kMostTeams + 31) / 32;

  Memory<kSlabs>& shared;
  const DecodeArgs& args;
  const Merge& merge;
  const int thread = static_cast<int>(threadIdx.x);
  const int lane = thread % 32;
  const PartialView first = partial_of(args, merge.first);
  std::uint32_t& parity;
  float* const weights = reinterpret_cast<float*>(shared.q);  // [rows, partials]

  __device__ Merger(Memory<kSlabs>& s, const DecodeArgs& a, const Merge& m, std::uint32_t& p)
      : shared(s), args(a), merge(m), parity(p) {}

  /// Starts the copies of elements [begin, begin + count), in fours, of all partials.
  __device__ void copy(int begin, int count) {
    if (thread >= 32) return;
    const std::uint32_t barrier = shared_address(&shared.merge_full);
    const std::uint32_t to = shared_address(shared.keys);
    const std::uint32_t bytes = static_cast<std::uint32_t>(count) * sizeof(float4);
    fence_async_proxy_all();
    if (lane == 0) arrive_and_expect(barrier, bytes * merge.count);
    __syncwarp();
    for (int p = lane; p < merge.count; p += 32) {
      copy_bytes(to + p * bytes, first.o + p * merge.stride + 4 * begin, bytes, barrier);
    }
  }

  /// One warp per row: what to multiply every partial with, and the row's lse.
  __device__ void weigh(int begin, int count) {
    const int first_row = begin / kWidth;
    const int rows = (begin + count - 1) / kWidth + 1 - first_row;
    for (int row = thread / 32; row < rows; row += kWarps) {
      float m[kLaneLoads];
      float l[kLaneLoads];
      float most = -INFINITY;
#pragma unroll
      for (int i = 0; i < kLaneLoads; ++i) {
        const int p = lane + 32 * i;
        const std::int64_t at = first_row + row + p * merge.stride;
        m[i] = p < merge.count ? gpu::load_fresh(first.m_log2 + at) : -INFINITY;
        l[i] = p < merge.count ? gpu::load_fresh(first.l + at) : 0;
        most = fmaxf(most, m[i]);
      }
      for (int mask = 16; mask > 0; mask /= 2) {
        most = fmaxf(most, __shfl_xor_sync(~0U, most, mask));
      }
      const float base = RowState::base_of(most);
      float sum = 0;
#pragma unroll
      for (int i = 0; i < kLaneLoads; ++i) {
        m[i] = exp2_fast(m[i] - base);
        sum += m[i] * l[i];
      }
      for (int mask = 16; mask > 0; mask /= 2) sum += __shfl_xor_sync(~0U, sum, mask);
      most = RowState::maximum_of(most, sum);
      const float scale = normalizer(most, sum);
#pragma unroll
      for (int i = 0; i < kLaneLoads; ++i) {
        const int p = lane + 32 * i;
        if (p < merge.count) weights[row * merge.count + p] = m[i] * scale;
      }
      if (lane == 0 && (first_row + row) * kWidth >= begin) {
        store_row(results_of(args, merge), first_row + row, most, sum);
      }
    }
  }

  __device__ void sum(int begin, int count) const {
    const auto* const staged = reinterpret_cast<const float4*>(shared.keys);
    const int first_row = begin / kWidth;
    const int column = (begin + thread) % kWidth;
    int row = (begin + thread) / kWidth;
    for (int i = thread; i < count; i += kConsumers, row += kConsumers / kWidth) {
      const float* const of_row = weights + (row - first_row) * merge.count;
      float4 all{};
#pragma unroll 4
      for (int p = 0; p < merge.count; ++p) add_scaled(all, of_row[p], staged[p * count + i]);
      store_final<kBf16>(
          args, out_offset(args, merge.out, merge.heads, merge.row_begin + row) + 4 * column, all);
    }
  }

  __device__ void run(Range elements) {
    const auto barrier = ConsumerBarrier{};
    const int end = static_cast<int>(elements.end);
    const int most = min(kStaged / merge.count, kSliceRows * kWidth);
    for (int begin = static_cast<int>(elements.begin); begin < end; begin += most) {
      const int count = min(most, end - begin);
      copy(begin, count);
      weigh(begin, count);
      barrier();
      wait(shared_address(&shared.merge_full), parity);
      parity ^= 1;
      sum(begin, count);
      fence_async_proxy();
      barrier();
    }
  }
};

/// The team's shares in merges, one after the other.
template <bool kBf16, int kSlabs>
__device__ void run_merges(const DecodeArgs& args, Memory<kSlabs>& shared, int team,
                           int block_in_team, int blocks_per_team) {
  const int thread = static_cast<int>(threadIdx.x);
  std::uint32_t parity = 0;
  for (int i = args.share_offsets[team]; i < args.share_offsets[team + 1]; ++i) {
    const MergeShare share = args.shares[i];
    const Merge merge = args.merges[share.merge];
    wait_for_parts(args, share.merge, merge.count * blocks_per_team, thread, ConsumerBarrier{});
    Merger<kBf16, kSlabs>(shared, args, merge, parity)
        .run(even_part(merge.rows * (args.d_v / 4), merge.blocks,
                       share.first_block + block_in_team));
    finish_merge(args, share.merge, merge.blocks, thread, ConsumerBarrier{});
  }
}

}  // namespace mla::kernels::cuda::sm90::seesaw
