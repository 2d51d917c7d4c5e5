#pragma once

#include "kernels/cuda/merge.cuh"
#include "kernels/cuda/sm90/seesaw_block.cuh"

namespace mla::kernels::cuda::sm90::seesaw {

struct ConsumerBarrier {
  __device__ void operator()() const { sync_threads(kAll, kConsumers); }
};

/// Rows whose merging begins at a time.
constexpr int kSliceRows = 16;

/// What is known of some rows while they are merged, in the place of the queries. As many partials
/// as fit into the place of the keys have no more weights.
struct MergeTables {
  float weights[2 * kMostTeams + 9 * kSliceRows];  // [rows, partials]
  float m[kSliceRows + 1];
  float l[kSliceRows + 1];
};

/// Merges slices of fast plans. All partials of some elements come to shared memory at once, by
/// bulk copies: several merges wait for one trip to memory each, not for one per few loads.
template <int kSlabs>
struct Merger {
  static constexpr int kWarps = kConsumers / 32;
  static constexpr int kStaged = static_cast<int>(sizeof(Memory<kSlabs>::keys) / sizeof(float4));
  static constexpr int kLaneLoads = (kMostTeams + 31) / 32;

  Memory<kSlabs>& shared;
  const DecodeArgs& args;
  const Merge& merge;
  const int thread = static_cast<int>(threadIdx.x);
  const int lane = thread % 32;
  const PartialView first = partial_of(args, merge.first);
  const int width = args.d_v / 4;
  std::uint32_t& parity;
  MergeTables& tables = *reinterpret_cast<MergeTables*>(shared.q);

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

  /// One warp per row: 2^(m - max m) of every partial, and the row's m and l.
  __device__ void weigh(int first_row, int rows) {
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
      const float base = most == -INFINITY ? 0 : most;
      float sum = 0;
#pragma unroll
      for (int i = 0; i < kLaneLoads; ++i) {
        const int p = lane + 32 * i;
        const float weight = exp2_fast(m[i] - base);
        sum += weight * l[i];
        if (p < merge.count) tables.weights[row * merge.count + p] = weight;
      }
      for (int mask = 16; mask > 0; mask /= 2) sum += __shfl_xor_sync(~0U, sum, mask);
      if (lane == 0) {
        tables.m[row] = sum == sum ? most : sum;  // the maximum overlooks a NaN
        tables.l[row] = sum;
      }
    }
  }

  __device__ void sum(int begin, int count) const {
    const auto* const staged = reinterpret_cast<const float4*>(shared.keys);
    const auto results = results_of(args, merge);
    const int first_row = begin / width;
    for (int i = thread; i < count; i += kConsumers) {
      const int row = (begin + i) / width;
      const float* const weights = tables.weights + (row - first_row) * merge.count;
      float4 all{};
#pragma unroll 8
      for (int p = 0; p < merge.count; ++p) add_scaled(all, weights[p], staged[p * count + i]);
      const float m = tables.m[row - first_row];
      const float l = tables.l[row - first_row];
      const int d = 4 * ((begin + i) % width);
      results.store(row, d, all, m, l);
      if (d == 0) results.store_row(row, m, l);
    }
  }

  __device__ void run(Range elements) {
    const auto barrier = ConsumerBarrier{};
    const int end = static_cast<int>(elements.end);
    const int most = min(kStaged / merge.count, kSliceRows * width);
    for (int begin = static_cast<int>(elements.begin); begin < end; begin += most) {
      const int count = min(most, end - begin);
      const int first_row = begin / width;
      copy(begin, count);
      weigh(first_row, (begin + count - 1) / width + 1 - first_row);
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
template <int kSlabs>
__device__ void run_merges(const DecodeArgs& args, Memory<kSlabs>& shared, int team,
                           int block_in_team, int blocks_per_team) {
  const int thread = static_cast<int>(threadIdx.x);
  std::uint32_t parity = 0;
  for (int i = args.share_offsets[team]; i < args.share_offsets[team + 1]; ++i) {
    const MergeShare share = args.shares[i];
    const Merge merge = args.merges[share.merge];
    wait_for_parts(args, share.merge, merge.count * blocks_per_team, thread, ConsumerBarrier{});
    Merger<kSlabs>(shared, args, merge, parity)
        .run(even_part(merge.rows * (args.d_v / 4), merge.blocks,
                       share.first_block + block_in_team));
    finish_merge(args, share.merge, merge.blocks, thread, ConsumerBarrier{});
  }
}

}  // namespace mla::kernels::cuda::sm90::seesaw
