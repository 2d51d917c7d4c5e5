#pragma once

#include "kernels/cuda/merge_job.cuh"

// The canonical tree over n partials, walked by many threads. Every merge of two subtrees has a
// name of its own: the first partial of its right side, which is between 1 and n - 1:
//
//   merge 4 ----+----            Whatever the order in which they are walked, these are the merges
//           |       |            of core/chunk_tree.h: a subtree without a right sibling has no
//   merge 2 +--   6 +--          merge until it is a right side itself. Here n = 7: there is no
//           | |     | |          merge 7, and partial 6 is the right side of merge 6.
//   merge 1 + 3 + 5 + -
//          0 1 2 3 4 5 6
//
// For each row the scales of all merges are found first, level by level, then the elements follow.

namespace mla::kernels::cuda {

/// What a merge does to its sides' l and o, in one float: the factor of the side with the smaller
/// maximum, negative (-0 too) if that is the left side; or that one side is empty.
inline constexpr float kTakeLeft = 2.0F;
inline constexpr float kTakeRight = -2.0F;

/// left (+) right for one value, as in `merge_partials`.
__device__ __forceinline__ float merged(float left, float right, float scale) {
  if (scale == kTakeLeft) return left;
  if (scale == kTakeRight) return right;
  const bool scale_left = __float_as_int(scale) < 0;
  const float kept = scale_left ? right : left;
  const float scaled = scale_left ? left : right;
  return gpu::add(kept, gpu::mul(scaled, fabsf(scale)));
}
__device__ __forceinline__ float4 merged(float4 left, float4 right, float scale) {
  return {merged(left.x, right.x, scale), merged(left.y, right.y, scale),
          merged(left.z, right.z, scale), merged(left.w, right.w, scale)};
}

/// The scale of a merge, and m <- the larger maximum.
__device__ __forceinline__ float merge_scale(float& m, float m_right) {
  if (m_right == kEmptyM) return kTakeLeft;
  const float m_left = m;
  if (m_left >= m_right) return exp2_exact(m_right - m_left);
  m = m_right;
  return m_left == kEmptyM ? kTakeRight : -exp2_exact(m_left - m_right);
}

/// Folds values that come from left to right into the tree above them. Registers only: the stack is
/// indexed by constants.
template <class Value, int kLevels>
struct RegisterFold {
  Value stack[kLevels];
  unsigned count = 0;

  /// @param merge  merge(left, right, k): `right` is the last 2^k values up to this one
  template <class Merge>
  __device__ __forceinline__ void push(Value value, Merge merge) {
    bool placed = false;
#pragma unroll
    for (int level = 0; level < kLevels; ++level) {
      if (placed) continue;
      if ((count >> level & 1U) != 0) {
        value = merge(stack[level], value, count + 1 - (1U << level));
      } else {
        stack[level] = value;
        placed = true;
      }
    }
    ++count;
  }

  /// The root, once all have come. @param merge  as for push
  template <class Merge>
  __device__ __forceinline__ Value root(Merge merge) const {
    Value value{};
    bool found = false;
    unsigned begin = count;
#pragma unroll
    for (int level = 0; level < kLevels; ++level) {
      if ((count >> level & 1U) == 0) continue;
      value = found ? merge(stack[level], value, begin) : stack[level];
      found = true;
      begin -= 1U << level;
    }
    return value;
  }
};

/// Turns the table's m into scales (place p: merge p) and its first place into the root's m and l.
template <class Barrier>
__device__ __forceinline__ void scale_merges(int rows, int n, const MergeTeam& team,
                                             Barrier barrier) {
  for (int half = 1; half < n; half *= 2) {
    const int merges = (n - half + 2 * half - 1) / (2 * half);
    for (int i = team.thread; i < rows * merges; i += team.threads) {
      const int left = i / merges * n + i % merges * 2 * half;
      float& m = team.scratch->m[left];
      float& m_right = team.scratch->m[left + half];
      float& l = team.scratch->l[left];
      const float scale = merge_scale(m, m_right);
      l = merged(l, team.scratch->l[left + half], scale);
      m_right = scale;
    }
    barrier();
  }
}

/// One element of the subtree over the partials [begin, end), where `begin` is a multiple of its
/// power of two. `values` holds the first of them already.
/// @param o       the element in partial 0
/// @param scales  [partials]
template <int kLevels>
__device__ __forceinline__ float4 subtree_value(const float* o, std::int64_t stride, int begin,
                                                int end, const float* scales,
                                                float4 (&values)[kMergeLoads]) {
  RegisterFold<float4, kLevels> fold;
  const auto merge = [&](float4 left, float4 right, unsigned runs_before) {
    return merged(left, right, scales[begin + static_cast<int>(runs_before) * kMergeLoads]);
  };
  for (int run = begin; run < end; run += kMergeLoads) {
#pragma unroll
    for (int half = 1; half < kMergeLoads; half *= 2) {
#pragma unroll
      for (int i = 0; i + half < kMergeLoads; i += 2 * half) {
        if (run + i + half < end) {
          values[i] = merged(values[i], values[i + half], scales[run + i + half]);
        }
      }
    }
    const float4 value = values[0];
    load_values(o, stride, run + kMergeLoads, 1, end, values);
    fold.push(value, merge);
  }
  return fold.root(merge);
}

/// The root of a run of partials, as far as one thread of a row knows it.
struct RunValue {
  float4 o;
  float m;
  float l;
};

__device__ __forceinline__ RunValue merged(RunValue left, const RunValue& right) {
  const float scale = merge_scale(left.m, right.m);
  left.l = merged(left.l, right.l, scale);
  left.o = merged(left.o, right.o, scale);
  return left;
}

/// Folds the roots of runs of kRun partials. There may be any number of them, but mostly there is
/// one: the stack lies in memory.
struct RunFold {
  RunValue stack[24];  ///< up to 2^24 runs
  int depth = 0;

  __device__ __forceinline__ void push(RunValue value, unsigned index) {
    for (; (index & 1U) != 0; index /= 2) value = merged(stack[--depth], value);
    stack[depth++] = value;
  }
  __device__ __forceinline__ RunValue root() {
    RunValue value = stack[--depth];
    while (depth > 0) value = merged(stack[--depth], value);
    return value;
  }
};

/// `elements` of the root of the canonical tree over the merge's partials, with the bits of
/// `merge_partials`. Subtrees of 512 partials fit the tables; larger trees are folded from them.
template <class Barrier>
__device__ void merge_exact(const DecodeArgs& args, const Merge& merge, Range elements,
                            const MergeTeam& team, Barrier barrier) {
  constexpr int kRun = 512;
  constexpr int kLevels = 7;  // 64 times kMergeLoads partials, one of them alone
  const MergeInputs inputs(args, merge);
  const auto results = results_of(args, merge);
  const int width = args.d_v / 4;
  const int end = static_cast<int>(elements.end);
  const int run = min(merge.count, kRun);
  const int table_rows = min(kMergeTable / run, kMergeRows);
  MergeScratch& scratch = *team.scratch;

  for (int group = static_cast<int>(elements.begin); group < end;) {
    const int first_row = group / width;
    const int group_end = min(end, (first_row + table_rows) * width);
    const int rows = (group_end - 1) / width + 1 - first_row;
    for (int begin = group; begin < group_end; begin += team.threads) {
      const MergePass pass(begin, group_end, run, team);
      const int row = pass.element / width - first_row;
      RunFold fold;
      RunValue value{};
      for (int from = 0; from < merge.count; from += run) {
        const int n = min(run, merge.count - from);
        int leaves = 1;  // of each split's subtree
        while (leaves * pass.splits < n) leaves *= 2;
        const int first = pass.split * leaves;
        const int last = pass.active() ? min(n, first + leaves) : 0;
        const float* o = inputs.o(pass.element, from);
        float4 values[kMergeLoads];  // on their way while the scales are made
        load_values(o, inputs.stride, first, 1, last, values);
        if (begin == group || run < merge.count) {
          barrier();
          inputs.load(first_row, rows, from, n, team);
          barrier();
          scale_merges(rows, n, team, barrier);
        }
        const float* scales = scratch.m + row * n;
        value.o = subtree_value<kLevels>(o, inputs.stride, first, last, scales, values);
        for (int step = 1; step < pass.splits; step *= 2) {
          const float4 right = pass.exchange(value.o, step, team, barrier);
          const int at = first + step * leaves;
          if ((pass.split & (2 * step - 1)) == 0 && at < n) {
            value.o = merged(value.o, right, scales[at]);
          }
        }
        value.m = scales[0];
        value.l = scratch.l[row * n];
        if (run < merge.count) fold.push(value, static_cast<unsigned>(from / run));
      }
      if (run < merge.count) value = fold.root();
      if (pass.split == 0) {
        const int d = 4 * (pass.element % width);
        results.store(first_row + row, d, value.o, value.m, value.l);
        if (d == 0) results.store_row(first_row + row, value.m, value.l);
      }
    }
    group = group_end;
  }
  barrier();
}

}  // namespace mla::kernels::cuda
