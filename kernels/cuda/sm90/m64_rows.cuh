#pragma once

#include "kernels/cuda/sm90/m64_block.cuh"

// The query rows of a block: where they lie, what they see, and their softmax.

namespace mla::kernels::cuda::sm90::m64 {

/// Row `r` of the block's queries; null past the last.
__device__ __forceinline__ const std::uint16_t* query(const DecodeArgs& args, const Work& work,
                                                      int r) {
  if (r >= work.rows) return nullptr;
  const int at = work.part.row_begin + work.row_begin + r;
  return args.q + work.part.q + at / work.part.heads * args.q_token_stride +
         at % work.part.heads * args.q_head_stride;
}

/// Over the four threads that share a row.
__device__ __forceinline__ float max_of_row(float x) {
  x = fmaxf(x, __shfl_xor_sync(~0U, x, 1));
  return fmaxf(x, __shfl_xor_sync(~0U, x, 2));
}
__device__ __forceinline__ float sum_of_row(float x) {
  x += __shfl_xor_sync(~0U, x, 1);
  return x + __shfl_xor_sync(~0U, x, 2);
}

/// What a thread knows of its two rows in a part: how far they see, and their softmax so far.
struct RowState {
  RowPair m{-INFINITY, -INFINITY};  // maxima
  RowPair l{0, 0};                  // sums of weights, each thread a quarter of the columns
  int visible[2];                   // ends of what the rows see, from the part's first token
  int all_visible;                  // what all rows of the block see

  __device__ RowState(const DecodeArgs& args, const Work& work, int row) {
    const Part& part = work.part;
    const auto visible_end = [&](int r) {
      const int behind = args.causal ? part.query_len - 1 - r / part.heads : 0;
      return min(part.context_len - behind, part.token_end) - part.token_begin;
    };
    const int first = part.row_begin + work.row_begin;
    for (int i = 0; i < 2; ++i) visible[i] = visible_end(first + min(row + 8 * i, work.rows - 1));
    all_visible = visible_end(first);
  }

  /// Scores of keys that a row does not see become -infinity.
  __device__ void hide(float (&s)[32], int tile) const {
    if ((tile + 1) * kTokens <= all_visible) return;
#pragma unroll
    for (int i = 0; i < 32; ++i) {
      const int column = tile * kTokens + i / 4 * 8 + static_cast<int>(threadIdx.x) % 4 * 2 + i % 2;
      if (column >= visible[i / 2 % 2]) s[i] = -INFINITY;
    }
  }

  /// Turns row r's scores into weights 2^(s - m), where m becomes the maximum with theirs, `most`.
  /// Returns what to scale earlier sums by.
  __device__ float take_row(float (&s)[32], int r, float scale_log2, float& most) {
    most = s[2 * r];
#pragma unroll
    for (int i = 2 * r; i < 32; i += 4) most = fmaxf(most, fmaxf(s[i], s[i + 1]));
    most = max_of_row(most) * scale_log2;
    const float found = fmaxf(m.of[r], most);
    const float base = base_of(found);
    float sum = 0;
#pragma unroll
    for (int i = 2 * r; i < 32; i += 4) {
      s[i] = exp2_fast(fmaf(s[i], scale_log2, -base));
      s[i + 1] = exp2_fast(fmaf(s[i + 1], scale_log2, -base));
      sum += s[i] + s[i + 1];
    }
    const float scale = exp2_fast(m.of[r] - base);
    m.of[r] = found;
    l.of[r] = l.of[r] * scale + sum;
    return scale;
  }

  static __device__ float base_of(float maximum) {
    return maximum == -INFINITY ? 0 : maximum;
  }

  /// A row's maximum, or NaN where the sum says that there was one: it is no maximum.
  static __device__ float maximum_of(float m, float sum) {
    return m == -INFINITY && sum != 0 ? NAN : m;
  }
};

}  // namespace mla::kernels::cuda::sm90::m64
