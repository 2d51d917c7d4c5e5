#pragma once

#include "kernels/cuda/sm90/m64_rows.cuh"

namespace mla::kernels::cuda::sm90::seesaw {

using m64::RowPair;
using m64::RowState;

/// A row's base, which `RowState::m` is here, stays as it is until a score lies more than this
/// above it, in powers of two: weights are at most 2^kSlack then, no maximum over threads is
/// needed, and sums have to be rescaled a few times per part only.
constexpr float kSlack = 8;

/// Raises the base of rows that have a score far above it: `most` are the maxima of this thread's
/// scores. Returns what to scale earlier sums by.
__device__ __forceinline__ RowPair raise_base(RowState& rows, const RowPair& most) {
  RowPair scale{1, 1};
  bool is_far = false;
#pragma unroll
  for (int r = 0; r < 2; ++r) is_far |= most.of[r] > rows.m.of[r] + kSlack;
  if (!__any_sync(~0U, is_far)) return scale;
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const float found = m64::max_of_row(most.of[r]);
    const float m = found > rows.m.of[r] + kSlack ? found : rows.m.of[r];
    scale.of[r] = exp2_fast(rows.m.of[r] - RowState::base_of(m));
    rows.m.of[r] = m;
    rows.l.of[r] *= scale.of[r];
  }
  return scale;
}

/// Turns the scores of tile `tile` into weights 2^(s - base). Returns what to scale earlier sums
/// by.
__device__ __forceinline__ RowPair take_softmax(RowState& rows, float (&s)[32], int tile,
                                                float scale_log2) {
  rows.hide(s, tile);
  RowPair most{s[0], s[2]};
#pragma unroll
  for (int i = 0; i < 32; ++i) most.of[i / 2 % 2] = fmaxf(most.of[i / 2 % 2], s[i]);
#pragma unroll
  for (float& x : most.of) x *= scale_log2;
  const RowPair scale = raise_base(rows, most);
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const float base = RowState::base_of(rows.m.of[r]);
    float sum = 0;
#pragma unroll
    for (int i = 2 * r; i < 32; i += 4) {
      s[i] = exp2_fast(fmaf(s[i], scale_log2, -base));
      s[i + 1] = exp2_fast(fmaf(s[i + 1], scale_log2, -base));
      sum += s[i] + s[i + 1];
    }
    rows.l.of[r] += sum;
  }
  return scale;
}

}  // namespace mla::kernels::cuda::sm90::seesaw
