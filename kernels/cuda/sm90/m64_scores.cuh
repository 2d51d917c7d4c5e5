#pragma once

#include "kernels/cuda/sm90/m64_rows.cuh"
#include "kernels/cuda/sm90/wgmma.cuh"

namespace mla::kernels::cuda::sm90::m64 {

template <bool kBf16>
__device__ __forceinline__ float rounded(float x) {
  if constexpr (kBf16) {
    return __bfloat162float(__float2bfloat16_rn(x));
  } else {
    return __half2float(__float2half_rn(x));
  }
}

/// Weights are rounded to 16 bits. Where one of them is more than this of its row's sum, the error
/// could be seen in the result, so what rounding took is added too.
constexpr float kHeavy = 1.0F / 64;

template <bool kBf16, int kSlabs>
struct Scorer {
  Shared<kSlabs>& shared;
  const DecodeArgs& args;
  const int thread = static_cast<int>(threadIdx.x) % kGroup;
  const int lane = thread % 32;
  const int row = thread / 32 * 16 + lane / 4;

  static constexpr int kHeld = kSlabs - kQueryTail;
  std::uint32_t q[kHeld][4][4];  // A operands of the products with the first slabs
  std::uint32_t rests = 0;

  __device__ Scorer(Shared<kSlabs>& s, const DecodeArgs& a) : shared(s), args(a) {}

  __device__ void load_queries(const Work& work) {
    for (int i = thread; i < kRows * 8 * kQueryTail; i += kGroup) {
      const int slab = i / 8 % kQueryTail;
      const int r = i / 8 / kQueryTail;
      const int element = (kHeld + slab) * kBoxElements + i % 8 * 8;
      const std::uint16_t* const from = query(args, work, r);
      const bool is_there = from != nullptr && element < args.d_qk;
      copy_16(shared_address(shared.q[slab]) + r * 128 + (i % 8 ^ (r % 8)) * 16,
              is_there ? from + element : args.q, is_there ? 16 : 0);
    }
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const std::uint16_t* const from = query(args, work, row + 8 * r);
#pragma unroll
      for (int i = 0; i < kHeld * 8; ++i) {
        const auto* const pair =
            reinterpret_cast<const std::uint32_t*>(from + i * 8 + lane % 4 * 2);
        q[i / 8][i / 2 % 4][i % 2 * 2 + r] = from == nullptr ? 0 : __ldg(pair);
      }
    }
    wait_for_copies();
    fence_async_proxy();
    sync_threads(kScores, kGroup);
  }

  __device__ void compute_scores(float (&s)[32], const Place& place) {
    const MatrixDescriptor k = describe_rows(shared_address(shared.values[place.values.stage]));
    const MatrixDescriptor tail = describe_rows(shared_address(shared.tail[place.tail.stage]));
    const MatrixDescriptor rest = describe_rows(shared_address(shared.q));
#pragma unroll
    for (int i = 0; i < kSlabs; ++i) {
      if (i < kSlabs - 1) {
        wait(shared_address(&shared.values_full[place.values.stage][i]), place.values.parity);
      } else {
        wait(shared_address(&shared.tail_full[place.tail.stage]), place.tail.parity);
      }
      begin_products();
#pragma unroll
      for (int step = 0; step < 4; ++step) {
        const MatrixDescriptor b =
            i < kSlabs - 1 ? moved(k, i * kSlabBytes + step * 32) : moved(tail, step * 32);
        if (i < kHeld) {
          multiply_rows<kBf16>(s, q[i][step], b, i + step > 0);
        } else {
          multiply_rows<kBf16>(s, moved(rest, (i - kHeld) * kSlabBytes + step * 32), b, true);
        }
      }
    }
    commit_products();
    wait_for_products<0>();
    pin(s);
  }

  /// Turns scores of tile `tile` into weights. Returns what to scale earlier sums by. `heavy` says
  /// which rows have a weight that is more than kHeavy of their sum so far.
  __device__ RowPair take_softmax(RowState& rows, float (&s)[32], int tile, bool (&heavy)[2]) {
    rows.hide(s, tile);
    RowPair scale;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      float most;
      scale.of[r] = rows.take_row(s, r, args.scale_log2, most);
      const float heaviest = exp2_fast(most - RowState::base_of(rows.m.of[r]));
      heavy[r] = heaviest > kHeavy * sum_of_row(rows.l.of[r]);
    }
    return scale;
  }

  /// Writes weights as an A operand of the products with values.
  __device__ void write_weights(const float (&s)[32], const Place& place) {
    std::uint8_t* const mine = shared.tail[place.tail.stage] + row * 128 + lane % 4 * 4;
#pragma unroll
    for (int j = 0; j < 8; ++j) {
      auto* const piece = reinterpret_cast<std::uint32_t*>(mine + (j ^ (row % 8)) * 16);
      piece[0] = pack<kBf16>(s[4 * j], s[4 * j + 1]);
      piece[8 * 128 / 4] = pack<kBf16>(s[4 * j + 2], s[4 * j + 3]);
    }
    fence_async_proxy();
  }

  /// Once the value groups have multiplied the rounded weights, gives them what rounding took from
  /// those of heavy rows. Others get zeros, which change no bit of theirs.
  __device__ void share_rest(float (&s)[32], const bool (&heavy)[2], const Place& place) {
#pragma unroll
    for (int i = 0; i < 32; ++i) s[i] = heavy[i / 2 % 2] ? s[i] - rounded<kBf16>(s[i]) : 0;
    wait(shared_address(&shared.taken), rests & 1);
    write_weights(s, place);
    arrive_as_warp(shared.rest);
    ++rests;
  }

  /// Maxima and sums of the part, for the value groups.
  __device__ void share_sums(const RowState& rows, int stage) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const float sum = sum_of_row(rows.l.of[r]);
      if (lane % 4 == 0) {
        shared.m[stage][row + 8 * r] = RowState::maximum_of(rows.m.of[r], sum);
        shared.l[stage][row + 8 * r] = sum;
      }
    }
  }

  __device__ void run(int team, int block_in_team) {
    Place place;
    std::int64_t loaded_q = -1;
    int loaded_row = -1;
    wait_for_previous_grid();
    for (int index = team; index >= 0;) {
      const Work work(args, index, block_in_team);
      index = work.part.next;
      if (work.tiles == 0) continue;
      if (work.part.q != loaded_q || work.part.row_begin != loaded_row) load_queries(work);
      loaded_q = work.part.q;
      loaded_row = work.part.row_begin;
      RowState rows(args, work, row);
      for (int tile = 0; tile < work.tiles; ++tile, place.advance()) {
        const int stage = place.values.stage;
        float s[32];
        compute_scores(s, place);
        bool heavy[2];
        const RowPair scale = take_softmax(rows, s, tile, heavy);
        write_weights(s, place);
        if (lane % 4 == 0) {
          shared.scale[stage][row] = scale.of[0];
          shared.scale[stage][row + 8] = scale.of[1];
        }
        const bool has_rest = any_of_threads(kScores, kGroup, heavy[0] || heavy[1]);
        if (thread == 0) shared.has_rest[stage] = has_rest;
        if (tile == work.tiles - 1) share_sums(rows, stage);
        arrive_as_warp(shared.weighted[stage]);
        if (has_rest) share_rest(s, heavy, place);
      }
    }
  }
};

}  // namespace mla::kernels::cuda::sm90::m64
