#pragma once

#include "kernels/cuda/sm90/m64_rows.cuh"
#include "kernels/cuda/sm90/seesaw_block.cuh"
#include "kernels/cuda/sm90/wgmma.cuh"

namespace mla::kernels::cuda::sm90::seesaw {

/// A row's base stays as it is until a score lies more than this above it, in powers of two:
/// weights are at most 2^kSlack then, and sums have to be rescaled a few times per part only.
constexpr float kSlack = 8;

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
  RowState& rows;
  std::uint32_t q_tail[4][4];  // A operands of the products with the last slab

  __device__ Side(Memory<kSlabs>& s, const DecodeArgs& a, const Work& work, std::uint32_t p,
                  RowState& r)
      : shared(s), args(a), keys(keys_of(work.part)), tiles(work.tiles), parities(p), rows(r) {
    const int loaded = thread / 32 * 16 + lane % 16;  // row whose address this lane gives
    const std::uint32_t at = shared_address(shared.q[kSlabs - 1]) + loaded * 128;
#pragma unroll
    for (int step = 0; step < 4; ++step) {
      load_matrices(at + ((2 * step + lane / 16) ^ (loaded % 8)) * 16, q_tail[step]);
    }
  }

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
        const bool adds = add || i + step > first;
        if (i < kSlabs - 1) {
          multiply_rows<kBf16>(s, moved(q, bytes), moved(k, bytes), adds);
        } else {
          multiply_rows<kBf16>(s, q_tail[step], moved(k, bytes), adds);
        }
      }
    }
    commit_products();
  }

  /// Raises the base of rows with scores far above it. Returns what to scale earlier sums by.
  __device__ RowPair raise_base(float (&s)[32], int tile) {
    rows.hide(s, tile);
    RowPair most{s[0], s[2]};
#pragma unroll
    for (int i = 0; i < 32; ++i) most.of[i / 2 % 2] = fmaxf(most.of[i / 2 % 2], s[i]);
    bool is_far = false;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      most.of[r] *= args.scale_log2;
      is_far |= most.of[r] > rows.m.of[r] + kSlack;
    }
    RowPair scale{1, 1};
    if (__any_sync(~0U, is_far)) {
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        const float found = max_of_row(most.of[r]);
        const float m = found > rows.m.of[r] + kSlack ? found : rows.m.of[r];
        scale.of[r] = exp2_fast(rows.m.of[r] - RowState::base_of(m));
        rows.m.of[r] = m;
        rows.l.of[r] *= scale.of[r];
      }
    }
    return scale;
  }

  /// Turns scores into weights.
  __device__ void weigh(float (&s)[32]) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const float base = RowState::base_of(rows.m.of[r]);
      float sum = 0;
#pragma unroll
      for (int i = 2 * r; i < 32; i += 4) {
        s[i] = exp2_fast(fmaf(s[i], args.scale_log2, -base));
        s[i + 1] = exp2_fast(fmaf(s[i + 1], args.scale_log2, -base));
        sum += s[i] + s[i + 1];
      }
      rows.l.of[r] += sum;
    }
  }

  /// Weights as the A operand of four products.
  __device__ void pack_weights(const float (&s)[32], std::uint32_t (&a)[4][4]) {
#pragma unroll
    for (int i = 0; i < 16; ++i) a[i / 4][i % 4] = pack<kBf16>(s[2 * i], s[2 * i + 1]);
  }

  /// Gives the other side weights and bases.
  __device__ void share_weights(const std::uint32_t (&a)[4][4], std::uint8_t* to) {
    const int stored = thread / 32 * 16 + lane % 16;  // row whose address this lane gives
    const std::uint32_t mine = shared_address(to) + stored * 128 + (lane / 16 ^ (stored % 8)) * 16;
#pragma unroll
    for (int step = 0; step < 4; ++step) store_matrices(mine ^ (step * 32), a[step]);
    if (lane % 4 == 0) {
      shared.m[half][row] = rows.m.of[0];
      shared.m[half][row + 8] = rows.m.of[1];
    }
    fence_async_proxy();
  }

  /// Takes over the bases that the other side has. Returns what to scale earlier sums by.
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
    const RowPair scale = raise_base(s, tile);
    weigh(s);
    pack_weights(s, a);
    share_weights(a, shared.weights_x);
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
    for (int tile = 0;; tile += 2) {
      float s[32];
      issue_scores<0, kHalf, false>(s, kX);
      if (tile > 0) finish_values<1>(o, kY);
      issue_scores<kHalf, kSlabs, true>(s, kX);
      wait_for_products<0>();
      take_x(tile, s, o);
      if (tile + 1 >= tiles) break;
      follow_y(tile + 1, o);
      if (tile + 2 >= tiles) {
        finish_values(o, kY);
        break;
      }
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
      const RowPair scale = raise_base(s, tile + 1);
      weigh(s);
      pack_weights(s, a);
      share_weights(a, weights_y());
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

  /// Adds all tiles of the part.
  __device__ void run(float (&o)[kOut]) {
    if (tiles == 0) return;
    if constexpr (half == 0) {
      run_left(o);
    } else {
      run_right(o);
    }
  }
};

}  // namespace mla::kernels::cuda::sm90::seesaw
