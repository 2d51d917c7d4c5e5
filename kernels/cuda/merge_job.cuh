#pragma once

#include "kernels/cuda/results.cuh"

namespace mla::kernels::cuda {

/// Threads that merge a slice together, at most.
inline constexpr int kMaxMergeThreads = 512;

/// Rows times partials whose m and l are in shared memory at a time.
inline constexpr int kMergeTable = 960;

/// Rows whose m and l are being merged at a time.
inline constexpr int kMergeRows = 32;

/// What the threads of a merge share.
struct MergeScratch {
  float4 exchange[kMaxMergeThreads / 2];
  float m[kMergeTable];  ///< [rows, partials]; later weights
  float l[kMergeTable];
  float row_m[kMergeRows];
  float row_l[kMergeRows];
  float row_scale[kMergeRows];
};

/// Shared memory that merging needs, whatever the sizes.
inline constexpr int kMergeSharedBytes = 12 * 1024;
static_assert(sizeof(MergeScratch) <= kMergeSharedBytes);

struct MergeTeam {
  int thread;
  int threads;
  MergeScratch* scratch;
};

/// Some elements (fours of one row) that are merged at once: `splits` threads share each, a power
/// of two, every one with some of the partials.
struct MergePass {
  int element;   ///< of the merge's; this thread's
  int elements;  ///< of the pass
  int split;     ///< at least `splits`: this thread has nothing to do
  int splits;

  __device__ __forceinline__ MergePass(int begin, int end, int most_splits, const MergeTeam& team)
      : elements(min(end - begin, team.threads)), splits(1) {
    while (2 * splits * elements <= team.threads && 2 * splits <= most_splits) splits *= 2;
    element = begin + team.thread % elements;
    split = team.thread / elements;
  }
  __device__ __forceinline__ bool active() const { return split < splits; }

  /// Threads [step, 2 step) of every 2 step hand their sums to their partners step before them.
  /// @return in a receiver, its partner's; elsewhere `sum`
  template <class Barrier>
  __device__ __forceinline__ float4 exchange(float4 sum, int step, const MergeTeam& team,
                                             Barrier barrier) const {
    const int slot = (split / (2 * step) * step + split % step) * elements + team.thread % elements;
    const bool upper = (split & step) != 0;
    barrier();
    if (active() && upper) team.scratch->exchange[slot] = sum;
    barrier();
    return active() && !upper ? team.scratch->exchange[slot] : sum;
  }
};

/// The partials of a merge, [count] of `rows` rows each.
struct MergeInputs {
  PartialView first;
  std::int64_t stride;  ///< floats
  int count;

  __device__ __forceinline__ MergeInputs(const DecodeArgs& args, const Merge& merge)
      : first(partial_of(args, merge.first)), stride(merge.stride), count(merge.count) {}

  /// m and l of `n` partials from `begin` on and `rows` rows from `row` on, into the tables.
  __device__ __forceinline__ void load(int row, int rows, int begin, int n,
                                       const MergeTeam& team) const {
    for (int i = team.thread; i < rows * n; i += team.threads) {
      const std::int64_t at = row + i / n + (begin + i % n) * stride;
      team.scratch->m[i] = gpu::load_fresh(first.m_log2 + at);
      team.scratch->l[i] = gpu::load_fresh(first.l + at);
    }
  }
  __device__ __forceinline__ const float* o(int element, int partial) const {
    return first.o + 4 * static_cast<std::int64_t>(element) + partial * stride;
  }
};

/// Loads that a thread keeps in flight.
inline constexpr int kMergeLoads = 8;

/// values[i] <- the element in partial begin + i * step, of those below `end`. `from` points to the
/// element in partial 0.
__device__ __forceinline__ void load_values(const float* from, std::int64_t stride, int begin,
                                            int step, int end, float4 (&values)[kMergeLoads]) {
#pragma unroll
  for (int i = 0; i < kMergeLoads; ++i) {
    const int partial = begin + i * step;
    if (partial < end) {
      values[i] = gpu::load_fresh(reinterpret_cast<const float4*>(from + partial * stride));
    }
  }
}

}  // namespace mla::kernels::cuda
