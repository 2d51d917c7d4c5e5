#pragma once

#include "kernels/cuda/sm90/m64_block.cuh"
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
/// could be seen in the result, so exact runs also add what rounding took.
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
  RowPair m{};
  RowPair l{};        // each thread a quarter of the columns
  int visible[2]{};   // ends of what the rows see, from the part's first token
  int all_visible{};  // what all rows of the block see
  std::uint32_t rests = 0;

  __device__ Scorer(Shared<kSlabs>& s, const DecodeArgs& a) : shared(s), args(a) {}

  /// Row `r` of the block's queries; null past the last.
  __device__ const std::uint16_t* query(const Work& work, int r) const {
    if (r >= work.rows) return nullptr;
    const int at = work.part.row_begin + work.row_begin + r;
    return args.q + work.part.q + at / work.part.heads * args.q_token_stride +
           at % work.part.heads * args.q_head_stride;
  }

  __device__ void load_queries(const Work& work) {
    for (int i = thread; i < kRows * 8 * kQueryTail; i += kGroup) {
      const int slab = i / 8 % kQueryTail;
      const int r = i / 8 / kQueryTail;
      const int element = (kHeld + slab) * kBoxElements + i % 8 * 8;
      const std::uint16_t* const from = query(work, r);
      const bool is_there = from != nullptr && element < args.d_qk;
      copy_16(shared_address(shared.q[slab]) + r * 128 + (i % 8 ^ (r % 8)) * 16,
              is_there ? from + element : args.q, is_there ? 16 : 0);
    }
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const std::uint16_t* const from = query(work, row + 8 * r);
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

  __device__ void begin(const Work& work) {
    const Part& part = work.part;
    const auto visible_end = [&](int r) {
      const int behind = args.causal ? part.query_len - 1 - r / part.heads : 0;
      return min(part.context_len - behind, part.token_end) - part.token_begin;
    };
    const int first = part.row_begin + work.row_begin;
    for (int i = 0; i < 2; ++i) {
      m.of[i] = -INFINITY;
      l.of[i] = 0;
      visible[i] = visible_end(first + min(row + 8 * i, work.rows - 1));
    }
    all_visible = visible_end(first);
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

  /// Turns scores of tile `tile` into weights 2^(s - m), where m becomes the maximum with theirs.
  /// Returns what to scale earlier sums by. `heavy` says which rows have a weight that is more than
  /// kHeavy of their sum so far.
  __device__ RowPair take_softmax(float (&s)[32], int tile, bool (&heavy)[2]) {
    if ((tile + 1) * kTokens > all_visible) {
#pragma unroll
      for (int i = 0; i < 32; ++i) {
        const int column = tile * kTokens + i / 4 * 8 + lane % 4 * 2 + i % 2;
        if (column >= visible[i / 2 % 2]) s[i] = -INFINITY;
      }
    }
    RowPair scale;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      float most = s[2 * r];
#pragma unroll
      for (int i = 2 * r; i < 32; i += 4) most = fmaxf(most, fmaxf(s[i], s[i + 1]));
      most = max_of_row(most) * args.scale_log2;
      const float found = fmaxf(m.of[r], most);
      const float base = found == -INFINITY ? 0 : found;
      float sum = 0;
#pragma unroll
      for (int i = 2 * r; i < 32; i += 4) {
        s[i] = exp2_fast(fmaf(s[i], args.scale_log2, -base));
        s[i + 1] = exp2_fast(fmaf(s[i + 1], args.scale_log2, -base));
        sum += s[i] + s[i + 1];
      }
      scale.of[r] = exp2_fast(m.of[r] - base);
      m.of[r] = found;
      l.of[r] = l.of[r] * scale.of[r] + sum;
      heavy[r] = args.exact && exp2_fast(most - base) > kHeavy * sum_of_row(l.of[r]);
    }
    return scale;
  }

  /// Over the four threads that share a row.
  static __device__ float max_of_row(float x) {
    x = fmaxf(x, __shfl_xor_sync(~0U, x, 1));
    return fmaxf(x, __shfl_xor_sync(~0U, x, 2));
  }
  static __device__ float sum_of_row(float x) {
    x += __shfl_xor_sync(~0U, x, 1);
    return x + __shfl_xor_sync(~0U, x, 2);
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
  __device__ void share_sums(int stage) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const float sum = sum_of_row(l.of[r]);
      if (lane % 4 == 0) {
        // A NaN is no maximum: the sum alone tells.
        shared.m[stage][row + 8 * r] = m.of[r] == -INFINITY && sum != 0 ? NAN : m.of[r];
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
      begin(work);
      for (int tile = 0; tile < work.tiles; ++tile, place.advance()) {
        const int stage = place.values.stage;
        float s[32];
        compute_scores(s, place);
        bool heavy[2];
        const RowPair scale = take_softmax(s, tile, heavy);
        write_weights(s, place);
        if (lane % 4 == 0) {
          shared.scale[stage][row] = scale.of[0];
          shared.scale[stage][row + 8] = scale.of[1];
        }
        const bool has_rest = args.exact && any_of_threads(kScores, kGroup, heavy[0] || heavy[1]);
        if (thread == 0) shared.has_rest[stage] = has_rest;
        if (tile == work.tiles - 1) share_sums(stage);
        arrive_as_warp(shared.weighted[stage]);
        if (has_rest) share_rest(s, heavy, place);
      }
    }
  }
};

}  // namespace mla::kernels::cuda::sm90::m64
