#pragma once

#include "kernels/cuda/merge_job.cuh"

namespace mla::kernels::cuda {

/// One warp per row turns m in the table into weights 2^(m - max m) and brings the row's m and l up
/// to date; row_scale is by how much what was summed before shrinks.
__device__ __forceinline__ void weigh_partials(int rows, int n, bool begin, const MergeTeam& team) {
  constexpr int kLanes = 32;
  MergeScratch& scratch = *team.scratch;
  const int lane = team.thread % kLanes;
  for (int row = team.thread / kLanes; row < rows; row += team.threads / kLanes) {
    float* m = scratch.m + row * n;
    const float* l = scratch.l + row * n;
    const float m_before = begin ? kEmptyM : scratch.row_m[row];
    const float l_before = begin ? 0.0F : scratch.row_l[row];
    float m_all = m_before;
    for (int i = lane; i < n; i += kLanes) m_all = fmaxf(m_all, m[i]);
    for (int mask = kLanes / 2; mask > 0; mask /= 2) {
      m_all = fmaxf(m_all, gpu::shuffle_xor(m_all, mask, kLanes));
    }
    const float base = m_all == kEmptyM ? 0.0F : m_all;
    float sum = 0.0F;
    for (int i = lane; i < n; i += kLanes) {
      m[i] = gpu::exp2(m[i] - base);
      sum += m[i] * l[i];
    }
    for (int mask = kLanes / 2; mask > 0; mask /= 2) sum += gpu::shuffle_xor(sum, mask, kLanes);
    if (lane == 0) {
      const float scale = gpu::exp2(m_before - base);
      const float l_all = l_before * scale + sum;
      scratch.row_m[row] = l_all == l_all ? m_all : l_all;  // the maximum overlooks a NaN
      scratch.row_l[row] = l_all;
      scratch.row_scale[row] = scale;
    }
  }
}

/// sum <- sum + weight x
__device__ __forceinline__ void add_scaled(float4& sum, float weight, float4 x) {
  sum.x = gpu::fma(weight, x.x, sum.x);
  sum.y = gpu::fma(weight, x.y, sum.y);
  sum.z = gpu::fma(weight, x.z, sum.z);
  sum.w = gpu::fma(weight, x.w, sum.w);
}

/// The weighted sum of the partials for `elements` of the merge. Weights of as many rows as fit are
/// computed once; where not even one row's fit, its partials are taken in runs.
template <class Barrier>
__device__ void merge_fast(const DecodeArgs& args, const Merge& merge, Range elements,
                           const MergeTeam& team, Barrier barrier) {
  const MergeInputs inputs(args, merge);
  const auto results = results_of(args, merge);
  const int width = args.d_v / 4;
  const int end = static_cast<int>(elements.end);
  const int run = min(merge.count, kMergeTable);
  const int table_rows = min(kMergeTable / run, kMergeRows);
  MergeScratch& scratch = *team.scratch;

  for (int group = static_cast<int>(elements.begin); group < end;) {
    const int first_row = group / width;
    const int group_end = min(end, (first_row + table_rows) * width);
    const int rows = (group_end - 1) / width + 1 - first_row;
    for (int begin = group; begin < group_end; begin += team.threads) {
      const MergePass pass(begin, group_end, merge.count, team);
      const int row = pass.element / width - first_row;
      float4 sum{};
      for (int from = 0; from < merge.count; from += run) {
        const int n = min(run, merge.count - from);
        const float* o = inputs.o(pass.element, from);
        const int last = pass.active() ? n : 0;
        float4 values[kMergeLoads];  // on their way while the weights are made
        load_values(o, inputs.stride, pass.split, pass.splits, last, values);
        if (begin == group || run < merge.count) {
          barrier();
          inputs.load(first_row, rows, from, n, team);
          barrier();
          weigh_partials(rows, n, from == 0, team);
          barrier();
        }
        if (from > 0) {
          const float scale = scratch.row_scale[row];
          sum = {sum.x * scale, sum.y * scale, sum.z * scale, sum.w * scale};
        }
        for (int partial = pass.split; partial < last;) {
#pragma unroll
          for (int i = 0; i < kMergeLoads; ++i) {
            const int at = partial + i * pass.splits;
            if (at < last) add_scaled(sum, scratch.m[row * n + at], values[i]);
          }
          partial += kMergeLoads * pass.splits;
          load_values(o, inputs.stride, partial, pass.splits, last, values);
        }
      }
      for (int step = pass.splits / 2; step > 0; step /= 2) {
        const float4 other = pass.exchange(sum, step, team, barrier);
        add_scaled(sum, 1.0F, other);
      }
      if (pass.split == 0) {
        const float m = scratch.row_m[row];
        const float l = scratch.row_l[row];
        const int d = 4 * (pass.element % width);
        results.store(first_row + row, d, sum, m, l);
        if (d == 0) results.store_row(first_row + row, m, l);
      }
    }
    group = group_end;
  }
  barrier();
}

}  // namespace mla::kernels::cuda
