#pragma once

#include "kernels/cuda/results.cuh"
#include "kernels/cuda/sm90/m64_rows.cuh"
#include "kernels/cuda/sm90/seesaw_block.cuh"
#include "kernels/cuda/sm90/wgmma.cuh"

namespace mla::kernels::cuda::sm90::seesaw {

/// One of the two warpgroups that compute: its sums, and what it knows of its rows.
template <bool kBf16, int kSlabs, int half>
struct Side {
  static constexpr int kHalf = (kSlabs - 1) / 2;  // slabs
  static constexpr int kOut = kHalf * 32;

  Memory<kSlabs>& shared;
  const DecodeArgs& args;
  const int keys;  // of the part
  const int tiles;
  const int thread = late_thread_index() % kGroup;
  const int lane = thread % 32;
  const int row = thread / 32 * 16 + lane / 4;  // the other is row + 8
  std::uint32_t parities;                       // of the tiles' barriers, a bit each
  RowState rows;

  __device__ Side(Memory<kSlabs>& s, const DecodeArgs& a, const Work& w, std::uint32_t p)
      : shared(s), args(a), keys(keys_of(w.part)), tiles(w.tiles), parities(p), rows(a, w, row) {}

  __device__ int tokens_of(int tile) const { return min(kTokens, keys - tile * kTokens); }
  __device__ std::uint8_t* weights_y() const { return shared.keys[kY][kSlabs - 1]; }

  __device__ void wait_for_slab(int tile, int i) const {
    wait(shared_address(&shared.full[tile][i]), parities >> tile & 1);
  }
  __device__ void wait_for_values(int tile) const {
#pragma unroll
    for (int i = half * kHalf; i < (half + 1) * kHalf; ++i) wait_for_slab(tile, i);
  }

  /// Issues products of slabs [first, last) for the scores of `tile`; `add` to those before.
  template <int first, int last, bool add>
  __device__ void issue_scores(float (&s)[32], int tile) {
    const MatrixDescriptor q = describe_rows(computed_here(shared_address(shared.q)));
    const MatrixDescriptor k = describe_rows(computed_here(shared_address(shared.keys[tile])));
#pragma unroll
    for (int i = first; i < last; ++i) {
      wait_for_slab(tile, i);
      begin_products();
#pragma unroll
      for (int step = 0; step < 4; ++step) {
        const int bytes = i * kSlabBytes + step * 32;
        multiply_rows<kBf16>(s, moved(q, bytes), moved(k, bytes), add || i + step > first);
      }
    }
    commit_products();
  }

  /// Turns scores into weights. Returns what to scale earlier sums by.
  __device__ RowPair take_softmax(float (&s)[32], int tile) {
    rows.hide(s, tile);
    RowPair scale;
    float most;
#pragma unroll
    for (int r = 0; r < 2; ++r) scale.of[r] = rows.take_row(s, r, args.scale_log2, most);
    return scale;
  }

  /// Weights as the A operand of four products, and in shared memory for the other side, with the
  /// maxima.
  __device__ void share_weights(const float (&s)[32], std::uint32_t (&a)[4][4], std::uint8_t* to) {
    const int stored = thread / 32 * 16 + lane % 16;  // row whose address this lane gives
    const std::uint32_t mine = shared_address(to) + stored * 128 + (lane / 16 ^ (stored % 8)) * 16;
#pragma unroll
    for (int step = 0; step < 4; ++step) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        a[step][i] = pack<kBf16>(s[8 * step + 2 * i], s[8 * step + 2 * i + 1]);
      }
      store_matrices(mine ^ (step * 32), a[step]);
    }
    if (lane % 4 == 0) {
      shared.m[half][row] = rows.m.of[0];
      shared.m[half][row + 8] = rows.m.of[1];
    }
    fence_async_proxy();
  }

  /// Takes over the maxima that the other side found. Returns what to scale earlier sums by.
  __device__ RowPair follow() {
    RowPair scale;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const float found = shared.m[1 - half][row + 8 * r];
      scale.of[r] = exp2_fast(rows.m.of[r] - RowState::base_of(found));
      rows.m.of[r] = found;
      rows.l.of[r] *= scale.of[r];
    }
    return scale;
  }

  /// Leaves out factors of 1, which change no bit. Without the branch the compiler would wait for
  /// all products before it.
  static __device__ void rescale(float (&o)[kOut], const RowPair& scale) {
    if (!__any_sync(~0U, scale.of[0] != 1 || scale.of[1] != 1)) return;
#pragma unroll
    for (int i = 0; i < kOut; ++i) o[i] *= scale.of[i / 2 % 2];
  }

  /// Zeroes the values of keys past the end, whatever the pages hold there: a weight of 0 does not
  /// help against NaN.
  __device__ void clear_values(int tile, int tokens) {
    if (tokens == kTokens) return;
    wait_for_values(tile);
    for (int i = thread; i < (kTokens - tokens) * 8 * kHalf; i += kGroup) {
      const int slab = half * kHalf + i / 8 % kHalf;
      const int token = tokens + i / 8 / kHalf;
      auto* const at = shared.keys[tile][slab] + token * 128 + i % 8 * 16;
      *reinterpret_cast<uint4*>(at) = uint4{0, 0, 0, 0};
    }
    fence_async_proxy();
    sync_threads(half == 0 ? kClearLeft : kClearRight, kGroup);
  }

  __device__ MatrixDescriptor values(int tile) const {
    return describe(shared_address(shared.keys[tile][half * kHalf]), kSlabBytes, 1024);
  }

  /// Issues o += weights of this side * values of `tile`.
  __device__ void issue_values(float (&o)[kOut], const std::uint32_t (&a)[4][4], int tile) {
    const MatrixDescriptor v = values(tile);
    begin_products();
#pragma unroll
    for (int step = 0; step < 4; ++step) {
      multiply_values<kBf16>(o, a[step], moved(v, step * 16 * 128), true);
    }
    commit_products();
    parities ^= 1U << tile;
  }

  /// The same with the other side's weights, at `weights` in shared memory.
  __device__ void issue_values(float (&o)[kOut], const std::uint8_t* weights, int tile) {
    const MatrixDescriptor v = values(tile);
    const MatrixDescriptor a = describe_rows(shared_address(weights));
    wait_for_values(tile);
    begin_products();
#pragma unroll
    for (int step = 0; step < 4; ++step) {
      multiply_values<kBf16>(o, moved(a, step * 32), moved(v, step * 16 * 128), true);
    }
    commit_products();
    parities ^= 1U << tile;
  }

  /// Waits for all products but the last `kGroups` groups and gives up this side's half of `tile`.
  template <int kGroups = 0>
  __device__ void finish_values(float (&o)[kOut], int tile) {
    wait_for_products<kGroups>();
    pin(o);
    if (lane == 0) arrive(shared_address(&shared.empty[tile][half]));
  }

  // Left: scores of x, first half of the values.

  __device__ void take_x(int tile, float (&s)[32], float (&o)[kOut]) {
    std::uint32_t a[4][4];
    pin(s);
    const RowPair scale = take_softmax(s, tile);
    share_weights(s, a, shared.weights_x);
    arrive_threads(kReadyX, kConsumers);
    rescale(o, scale);
    clear_values(kX, tokens_of(tile));
    issue_values(o, a, kX);
    finish_values(o, kX);
  }

  __device__ void follow_y(int tile, float (&o)[kOut]) {
    sync_threads(kReadyY, kConsumers);
    rescale(o, follow());
    clear_values(kY, tokens_of(tile));
    issue_values(o, weights_y(), kY);
  }

  __device__ void run_left(float (&o)[kOut]) {
    float s[32];
    issue_scores<0, kSlabs, false>(s, kX);
    wait_for_products<0>();
    int tile = 0;
    for (; tile + 2 < tiles; tile += 2) {
      take_x(tile, s, o);
      follow_y(tile + 1, o);
      issue_scores<0, kHalf, false>(s, kX);
      finish_values<1>(o, kY);
      issue_scores<kHalf, kSlabs, true>(s, kX);
      wait_for_products<0>();
    }
    take_x(tile, s, o);
    if (tile + 1 < tiles) {
      follow_y(tile + 1, o);
      finish_values(o, kY);
    }
  }

  // Right: scores of y, second half of the values.

  __device__ void follow_x(float (&o)[kOut]) {
    sync_threads(kReadyX, kConsumers);
    rescale(o, follow());
    issue_values(o, shared.weights_x, kX);
  }

  __device__ void run_right(float (&o)[kOut]) {
    int tile = 0;
    for (; tile + 1 < tiles; tile += 2) {
      float s[32];
      std::uint32_t a[4][4];
      issue_scores<kHalf, kSlabs - 1, false>(s, kY);
      issue_scores<0, kHalf, true>(s, kY);
      issue_scores<kSlabs - 1, kSlabs, true>(s, kY);
      follow_x(o);
      wait_for_products<1>();
      pin(s);
      const RowPair scale = take_softmax(s, tile + 1);
      share_weights(s, a, weights_y());
      arrive_threads(kReadyY, kConsumers);
      finish_values(o, kX);
      rescale(o, scale);
      clear_values(kY, tokens_of(tile + 1));
      issue_values(o, a, kY);
      finish_values(o, kY);
    }
    if (tile < tiles) {
      sync_threads(kReadyX, kConsumers);
      rescale(o, follow());
      clear_values(kX, tokens_of(tile));
      issue_values(o, shared.weights_x, kX);
      finish_values(o, kX);
    }
  }

  /// Computes the part and writes this side's half of its rows: a partial, or their results.
  __device__ void run(int index, int block_in_team) {
    float o[kOut];
#pragma unroll
    for (float& x : o) x = 0;
    if (tiles > 0) {
      if constexpr (half == 0) {
        run_left(o);
      } else {
        run_right(o);
      }
    }
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const float sum = sum_of_row(rows.l.of[r]);
      if (lane % 4 == 0) shared.l[half][row + 8 * r] = sum;
    }
    sync_threads(kAll, kConsumers);
    const Work work(args, index, block_in_team);  // read again: registers are short in the loop
    finish<0>(work, o);
    finish<1>(work, o);
    sync_threads(kAll, kConsumers);
  }

  /// Writes rows row + 8 r of this warp, through the place of the queries, so that lanes which
  /// write at the same time have elements side by side.
  template <int r>
  __device__ __forceinline__ void finish(const Work& work, const float (&o)[kOut]) {
    const float l = shared.l[0][row + 8 * r] + shared.l[1][row + 8 * r];
    const float m = RowState::maximum_of(rows.m.of[r], l);
    const auto results = results_of(args, work.part);
    const int at = work.row_begin + row + 8 * r;
    if (half == 0 && lane % 4 == 0 && row + 8 * r < work.rows) results.store_row(at, m, l);
    const int first_row = thread / 32 * 16 + 8 * r;
    const int count = min(8, work.rows - first_row);  // of rows; may be negative
    std::uint8_t* const staged = shared.q[0] + (half * 4 + thread / 32) * 8 * kStagedRow;
    std::uint8_t* const mine = staged + lane / 4 * kStagedRow;
    constexpr int kFirst = half * 2 * kOut;
    const int d = 4 * lane;  // elements of a row that the lane writes
    __syncwarp();
    if (!results.final()) {
      stage(mine, o, r, 1);
      float* const to = partial_of(args, work.part.partial).o + kFirst + d +
                        static_cast<std::int64_t>(at - lane / 4) * args.d_v;
      for (int i = 0; i < count; ++i) {
        for_each_piece(d, [&](int e) {
          const auto* const x = reinterpret_cast<const float4*>(staged + i * kStagedRow + 4 * e);
          __stcg(reinterpret_cast<float4*>(to + i * args.d_v + e - d), *x);
        });
      }
      return;
    }
    const float scale = m == -INFINITY ? 0 : 1 / l;
    const bool is_wide = args.out_type == OutType::kFp32;
    if (is_wide) {
      stage(mine, o, r, scale);
    } else {
      stage_packed(mine, o, r, scale);
    }
    const std::int64_t element =
        out_offset(args, work.part.out, work.part.heads, work.part.row_begin + at);
    for (int i = 0; i < count; ++i) {
      const std::int64_t begin = __shfl_sync(~0U, element, 4 * i) + kFirst;
      for_each_piece(d, [&](int e) {
        if (is_wide) {
          *reinterpret_cast<float4*>(static_cast<float*>(args.out) + begin + e) =
              *reinterpret_cast<const float4*>(staged + i * kStagedRow + 4 * e);
        } else {
          *reinterpret_cast<uint2*>(static_cast<std::uint16_t*>(args.out) + begin + e) =
              *reinterpret_cast<const uint2*>(staged + i * kStagedRow + 2 * e);
        }
      });
    }
  }

  /// Half a row in shared memory: 32 bytes more, so that rows begin in different banks.
  static constexpr int kStagedRow = 2 * kOut * 4 + 32;
  static_assert(8 * 8 * kStagedRow <= sizeof(shared.q));

  template <class Use>
  static __device__ __forceinline__ void for_each_piece(int d, Use use) {
#pragma unroll
    for (int e = 0; e < 2 * kOut; e += 128) use(d + e);
  }
  __device__ __forceinline__ void stage(std::uint8_t* mine, const float (&o)[kOut], int r,
                                        float scale) const {
    auto* const to = reinterpret_cast<float2*>(mine) + lane % 4;
#pragma unroll
    for (int j = 0; j < kOut / 4; ++j) {
      to[4 * j] = float2{o[4 * j + 2 * r] * scale, o[4 * j + 2 * r + 1] * scale};
    }
    __syncwarp();
  }
  __device__ __forceinline__ void stage_packed(std::uint8_t* mine, const float (&o)[kOut], int r,
                                               float scale) const {
    auto* const to = reinterpret_cast<std::uint32_t*>(mine) + lane % 4;
#pragma unroll
    for (int j = 0; j < kOut / 4; ++j) {
      to[4 * j] = pack<kBf16>(o[4 * j + 2 * r] * scale, o[4 * j + 2 * r + 1] * scale);
    }
    __syncwarp();
  }
};

}  // namespace mla::kernels::cuda::sm90::seesaw
