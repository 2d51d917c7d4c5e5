#pragma once

#include "kernels/cuda/merge.cuh"
#include "kernels/cuda/sm90/m64_block.cuh"
#include "kernels/cuda/sm90/m64_loader.cuh"
#include "kernels/cuda/sm90/wgmma.cuh"

namespace mla::kernels::cuda::sm90::m64 {

/// `which` ? a : b. Of two elements of an array, the compiler would choose the address and keep the
/// array in memory.
__device__ __forceinline__ float select(bool which, float a, float b) {
  float x;
  asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %3, 0;\nselp.f32 %0, %1, %2, p;\n}"
               : "=f"(x)
               : "f"(a), "f"(b), "r"(static_cast<int>(which)));
  return x;
}

/// o / l with the bits of a division, but fewer instructions: a product with the reciprocal, put
/// right by its remainder (Markstein, 1990).
struct Quotient {
  float l;
  float reciprocal;

  /// Rows that saw no key give zeros.
  __device__ Quotient(float m, float sum) : l(sum), reciprocal(m == -INFINITY ? 0 : 1 / sum) {}

  static __device__ __noinline__ float divide(float o, float l) { return o / l; }

  __device__ float of(float o) const {
    constexpr float kSmall = 1e-30F;  // remainders of less may not be exact
    const float q = o * reciprocal;
    if (fabsf(q) < kSmall && o != 0 && reciprocal != 0) return divide(o, l);
    return fmaf(fmaf(-q, l, o), reciprocal, q);
  }
  __device__ float4 of(const float4& o) const { return {of(o.x), of(o.y), of(o.z), of(o.w)}; }
};

template <bool kBf16, int kSlabs, int half>
struct Summer {
  static constexpr int kHalf = (kSlabs - 1) / 2;  // slabs
  static constexpr int kOut = kHalf * 32;

  Shared<kSlabs>& shared;
  const DecodeArgs& args;
  const int thread = static_cast<int>(threadIdx.x) % kGroup;
  const int lane = thread % 32;
  const int row = thread / 32 * 16 + lane / 4;

  std::uint32_t rests = 0;

  __device__ Summer(Shared<kSlabs>& s, const DecodeArgs& a) : shared(s), args(a) {}

  __device__ void wait_for_values(const Ring<kValueStages>& ring) {
#pragma unroll
    for (int i = half * kHalf; i < (half + 1) * kHalf; ++i) {
      wait(shared_address(&shared.values_full[ring.stage][i]), ring.parity);
    }
  }

  /// Zeroes the values of keys past the end, whatever the pages hold there: a weight of 0 does not
  /// help against NaN.
  __device__ void clear_values(int stage, int tokens) {
    for (int i = thread; i < (kTokens - tokens) * 8 * kHalf; i += kGroup) {
      const int slab = half * kHalf + i / 8 % kHalf;
      const int token = tokens + i / 8 / kHalf;
      auto* const at = shared.values[stage][slab] + token * 128 + i % 8 * 16;
      *reinterpret_cast<uint4*>(at) = uint4{0, 0, 0, 0};
    }
    fence_async_proxy();
    sync_threads(half == 0 ? kValuesLeft : kValuesRight, kGroup);
  }

  /// o <- o * scale + weights * values of the tile at `place`.
  __device__ void add_tile(float (&o)[kOut], const Place& place, int tokens) {
    const int stage = place.values.stage;
    wait(shared_address(&shared.weighted[stage]), place.values.parity);
    const float scale[2] = {shared.scale[stage][row], shared.scale[stage][row + 8]};
    if (__any_sync(~0U, scale[0] != 1 || scale[1] != 1)) {
#pragma unroll
      for (int i = 0; i < kOut; ++i) o[i] *= scale[i / 2 % 2];
    }
    wait_for_values(place.values);
    if (tokens < kTokens) clear_values(stage, tokens);
    const bool has_rest = shared.has_rest[stage] != 0;
    multiply(o, place);
    if (has_rest) {
      arrive_as_warp(shared.taken);
      wait(shared_address(&shared.rest), rests & 1);
      ++rests;
      multiply(o, place);
    }
  }

  /// o += weights * values.
  __device__ void multiply(float (&o)[kOut], const Place& place) {
    const MatrixDescriptor v =
        describe(shared_address(shared.values[place.values.stage][half * kHalf]), kSlabBytes, 1024);
    const MatrixDescriptor p = describe_rows(shared_address(shared.tail[place.tail.stage]));
    begin_products();
#pragma unroll
    for (int step = 0; step < 4; ++step) {
      multiply_values<kBf16>(o, moved(p, step * 32), moved(v, step * 16 * 128), true);
    }
    commit_products();
    wait_for_products<0>();
    pin(o);
  }

  /// Calls store(d, four) for the fours of elements from d on that this thread has of row
  /// row + 8 r. Neighbours swap pairs, so that each has four elements side by side.
  template <class Store>
  __device__ void for_each_four(const float (&o)[kOut], int r, Store&& store) const {
    const bool is_odd = lane % 2 == 1;
    const int first = half * kHalf * kBoxElements + lane % 4 / 2 * 4 + (is_odd ? 8 : 0);
#pragma unroll
    for (int j = 0; j < kOut / 4; j += 2) {
      const int k = 4 * j + 2 * r;  // of column group j; those of the next one are 4 further
      const float give[2] = {select(is_odd, o[k], o[k + 4]), select(is_odd, o[k + 1], o[k + 5])};
      const float keep[2] = {select(is_odd, o[k + 4], o[k]), select(is_odd, o[k + 5], o[k + 1])};
      const float got[2] = {__shfl_xor_sync(~0U, give[0], 1), __shfl_xor_sync(~0U, give[1], 1)};
      store(first + 8 * j,
            float4{select(is_odd, got[0], keep[0]), select(is_odd, got[1], keep[1]),
                   select(is_odd, keep[0], got[0]), select(is_odd, keep[1], got[1])});
    }
  }

  /// Writes this half of a row: of a partial, or of the results.
  __device__ void finish_row(const Work& work, const float (&o)[kOut], int r, float m, float l) {
    const auto results = results_of(args, work.part);
    const int at = work.row_begin + row + 8 * r;
    const bool is_there = row + 8 * r < work.rows;
    if (is_there && half == 0 && lane % 4 == 0) results.store_row(at, m, l);
    if (!results.final()) {
      float* const to =
          partial_of(args, work.part.partial).o + static_cast<std::int64_t>(at) * args.d_v;
      for_each_four(o, r, [&](int d, float4 x) {
        if (is_there) __stcg(reinterpret_cast<float4*>(to + d), x);
      });
      return;
    }
    const Quotient by(m, l);
    const std::int64_t element =
        out_offset(args, work.part.out, work.part.heads, work.part.row_begin + at);
    if (args.out_type == OutType::kFp32) {
      float* const to = static_cast<float*>(args.out) + element;
      for_each_four(o, r, [&](int d, float4 x) {
        if (is_there) *reinterpret_cast<float4*>(to + d) = by.of(x);
      });
    } else {
      auto* const to = static_cast<std::uint16_t*>(args.out) + element;
      for_each_four(o, r, [&](int d, float4 x) {
        const float4 y = by.of(x);
        const uint2 packed{pack<kBf16>(y.x, y.y), pack<kBf16>(y.z, y.w)};
        if (is_there) *reinterpret_cast<uint2*>(to + d) = packed;
      });
    }
  }

  /// The first warp copies the values of this half. The second one of the right half copies the
  /// tails, which both halves must have done with.
  __device__ void run(Loader loader, int team, int block_in_team) {
    const int warp = __shfl_sync(~0U, thread / 32, 0);
    const bool copies_values = warp == 0;
    const bool copies_tails = half == 1 && warp == 1;
    wait_for_previous_grid();
    if (copies_values) {
      for (int i = 0; i < kValueStages; ++i) copy_values(loader, i);
    } else if (copies_tails) {
      for (int i = 0; i < kTailStages; ++i) copy_tail(loader, i);
    }
    Place place;
    for (int index = team; index >= 0;) {
      const int keys = __shfl_sync(~0U, keys_of(args.parts[index]), 0);
      float o[kOut];
#pragma unroll
      for (float& x : o) x = 0;
      RowPair m{-INFINITY, -INFINITY};
      RowPair l{0, 0};
      for (int begin = 0; begin < keys; begin += kTokens, place.advance()) {
        const int stage = place.values.stage;
        const bool is_last = begin + kTokens >= keys;
        add_tile(o, place, min(kTokens, keys - begin));
        if (is_last) {
          for (int r = 0; r < 2; ++r) {
            m.of[r] = shared.m[stage][row + 8 * r];
            l.of[r] = shared.l[stage][row + 8 * r];
          }
        }
        arrive_as_warp(shared.summed[stage][half]);
        if (copies_values) {
          wait(shared_address(&shared.summed[stage][half]), place.values.parity);
          copy_values(loader, stage);
        } else if (copies_tails) {
          for (std::uint64_t& barrier : shared.summed[stage]) {
            wait(shared_address(&barrier), place.values.parity);
          }
          copy_tail(loader, place.tail.stage);
        }
      }
      const Work work(args, index, block_in_team);  // read again: registers are short in the loop
      if (work.rows > 0) {
        finish_row(work, o, 0, m.of[0], l.of[0]);
        finish_row(work, o, 1, m.of[1], l.of[1]);
      }
      if (work.part.merge >= 0) arrive_at_merge(args, work.part.merge, merger(), MergeBarrier{});
      index = work.part.next;
    }
  }

  __device__ void copy_values(Loader& loader, int stage) {
    const int slab = lane < kHalf ? half * kHalf + lane : -1;
    const int place = max(slab, 0);
    loader.copy_next(slab, shared_address(shared.values[stage][place]),
                     shared_address(&shared.values_full[stage][place]));
  }
  __device__ void copy_tail(Loader& loader, int stage) {
    loader.copy_next(lane == 0 ? kSlabs - 1 : -1, shared_address(shared.tail[stage]),
                     shared_address(&shared.tail_full[stage]));
  }

  struct MergeBarrier {
    __device__ void operator()() const { sync_threads(kMerge, kMergers); }
  };
  __device__ int merger() const {
    return half * kGroup + thread;
  }

  __device__ void run_merges(int team, int block_in_team, int blocks_per_team) {
    for (int i = args.share_offsets[team]; i < args.share_offsets[team + 1]; ++i) {
      const MergeShare share = args.shares[i];
      const Merge merge = args.merges[share.merge];
      wait_for_parts(args, share.merge, merge.count * blocks_per_team, merger(), MergeBarrier{});
      merge_slice(args, merge, share.first_block + block_in_team, merger(), kMergers, shared.values,
                  MergeBarrier{});
      finish_merge(args, share.merge, merge.blocks, merger(), MergeBarrier{});
    }
  }
};

}  // namespace mla::kernels::cuda::sm90::m64
