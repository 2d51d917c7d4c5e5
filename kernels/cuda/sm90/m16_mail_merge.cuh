#pragma once

#include <bit>

#include "kernels/cuda/sm90/m16_mailbox.cuh"
#include "kernels/cuda/sm90/m16_worker.cuh"

namespace mla::kernels::cuda::sm90::m16 {

/// Reads what the team must know of its merges while there is time.
__device__ __forceinline__ void read_merges(const DecodeArgs& args, int team, TeamMerges& to) {
  to.begin = args.share_offsets[team];
  to.end = args.share_offsets[team + 1];
  if (to.begin == to.end) return;
  to.share = args.shares[to.begin];
  to.merge = args.merges[to.share.merge];
}

/// Merges this block's part of a slice, out of what the teams that share some rows have mailed. The
/// computing threads call, after all their parts. It runs once in a launch, mostly: short code
/// counts.
template <int kDQk, int kDV, int kBlocks>
class MailMerge {
  using L = Layout<kDQk, kDV>;
  using Box = Mailbox<kDV>;
  static constexpr int kLoads = 8;  ///< vectors that a thread asks for at a time
  static constexpr int kStatLoads = kMostSenders / 32;
  static constexpr int kWeightFloats = kRows + 2;  ///< of a sender: no two in the same banks
  static_assert(kMostSenders * kWeightFloats * 4 <= L::kP - L::kQ);

 public:
  __device__ __forceinline__ MailMerge(const DecodeArgs& args, const Merge& merge, int slice,
                                       const Worker& worker, std::uint32_t launches)
      : args_(args), merge_(merge), w_(worker), postmark_(launches) {
    w_.forget();
    count_ = merge.count;
    stride_ = static_cast<int>(merge.stride);
    const int slices_log2 = 31 - __clz(merge.slices);
    const int places_log2 =
        std::bit_width(static_cast<unsigned>(Box::kPlaces / kBlocks)) - 1 - slices_log2;
    places_ = 1 << places_log2;
    const int width_log2 = min(places_log2, kComputeThreadsLog2);
    sharers_ = kComputeThreads >> width_log2;
    sharer_ = w_.thread >> width_log2;
    place_ = w_.thread & ((1 << width_log2) - 1);
    slice += w_.block << slices_log2;
    first_place_ = slice << places_log2;
    writes_lse_ = slice == 0 && w_.lane < 2 && my_row() < merge_.rows;
    const Box box{args.partials + merge.first.offset};
    stats_ = box.stats(slice) + w_.thread / 32 * 4;
    sums_ = box.sums(first_place_ + place_);
  }

  __device__ __forceinline__ void run() const {
    Target target;
    const float2 stats = add_partials(target);
    w_.barrier_of_all();
    write_rows(target);
    if (writes_lse_) *place_of(my_row()).lse = lse_of(stats.x, stats.y);
    __syncwarp();
    w_.barrier_of_all();
  }

 private:
  /// Where a vector of four elements of a row goes. 16 places are eight rows of two.
  struct Target {
    char* row;  ///< null: there is no such row
    int element;
    std::uint32_t sums;  ///< of the first sharer
  };

  __device__ __forceinline__ Target target_of(int vector) const {
    const int unit = vector / 16;
    const int upper = vector % 2;
    const int row_of_half = vector % 16 / 2;
    const int row = unit / 2 % 2 * 8 + row_of_half;
    const int place = w_.thread / 16 * 16 + row_of_half / 2;
    return {row < merge_.rows ? place_of(row).out : nullptr,
            unit / 4 * 16 + upper * 8 + unit % 2 * 4,
            sum_at(0, place) + upper * 8 + row_of_half % 2 * 4};
  }

  __device__ __forceinline__ RowPlace place_of(int row) const {
    const int item_row = merge_.row_begin + row;
    const int token = item_row / merge_.heads;
    const int head = item_row - token * merge_.heads;
    const std::int64_t out =
        merge_.out + token * args_.out_token_stride + head * args_.out_head_stride;
    const int size = args_.out_type == OutType::kFp32 ? 4 : 2;
    return {static_cast<char*>(args_.out) + out * size,
            args_.lse + merge_.lse + token * args_.lse_token_stride + head * args_.lse_head_stride};
  }

  /// One of this warp's two rows.
  __device__ __forceinline__ int my_row() const { return w_.thread / 32 * 2 + w_.lane % 2; }

  /// m and l of this warp's two rows, from sender `i`.
  __device__ __forceinline__ const float* stats_of(int i) const {
    return stats_ + static_cast<std::int64_t>(i) * stride_;
  }
  /// This thread's first place, from sender `i`.
  __device__ __forceinline__ const float* sums_of(int i) const {
    return sums_ + static_cast<std::int64_t>(i) * stride_;
  }

  /// A warp gets two rows of all senders.
  /// @param meanwhile called whenever something is missing
  template <class Meanwhile>
  __device__ __forceinline__ void await_stats(float4 (&stats)[kStatLoads],
                                              Meanwhile meanwhile) const {
#pragma unroll
    for (int i = 0; i < kStatLoads; ++i) {
      stats[i] = make_float4(-INFINITY, 0, -INFINITY, 0);
      if (i * 32 >= count_) continue;
      const float* from = stats_of(min(i * 32 + w_.lane, count_ - 1));
      float4 x = look(from);
      while (!__all_sync(0xFFFFFFFFu, postmark_.has_come(x))) {
        if (i == 0) meanwhile();
        x = look(from);
      }
      if (i * 32 + w_.lane < count_) stats[i] = Postmark::open(x);
    }
  }

  /// Turns m and l into the senders' weights, with which the sums are finished.
  /// @return in lanes 0 and 1, m and l of my_row()
  __device__ __forceinline__ float2 weigh(const float4 (&stats)[kStatLoads]) const {
    float m[2] = {-INFINITY, -INFINITY};
    float l[2] = {0, 0};
#pragma unroll
    for (int i = 0; i < kStatLoads; ++i) {
      m[0] = fmaxf(m[0], stats[i].x);
      m[1] = fmaxf(m[1], stats[i].z);
    }
#pragma unroll
    for (int distance = 1; distance < 32; distance *= 2) {
      m[0] = fmaxf(m[0], __shfl_xor_sync(0xFFFFFFFFu, m[0], distance));
      m[1] = fmaxf(m[1], __shfl_xor_sync(0xFFFFFFFFu, m[1], distance));
    }
    float2 weights[kStatLoads];
    const float base[2] = {base_of(m[0]), base_of(m[1])};
#pragma unroll
    for (int i = 0; i < kStatLoads; ++i) {
      if (i * 32 >= count_) break;
      weights[i] = make_float2(exp2_fast(stats[i].x - base[0]), exp2_fast(stats[i].z - base[1]));
      l[0] += weights[i].x * stats[i].y;
      l[1] += weights[i].y * stats[i].w;
    }
#pragma unroll
    for (int distance = 1; distance < 32; distance *= 2) {
      l[0] += __shfl_xor_sync(0xFFFFFFFFu, l[0], distance);
      l[1] += __shfl_xor_sync(0xFFFFFFFFu, l[1], distance);
    }
    const float scale[2] = {inverse_of(l[0]), inverse_of(l[1])};
#pragma unroll
    for (int i = 0; i < kStatLoads; ++i) {
      const int sender = i * 32 + w_.lane;
      if (sender < count_) {
        *weights_of(sender, w_.thread / 32 * 2) =
            make_float2(weights[i].x * scale[0], weights[i].y * scale[1]);
      }
    }
    __syncwarp();
    return w_.lane == 0 ? make_float2(m[0], l[0]) : make_float2(m[1], l[1]);
  }

  static __device__ __forceinline__ float2* weights_of(int sender, int row) {
    return Worker::pointer<float2>(L::kQ + (sender * kWeightFloats + row) * 4);
  }
  __device__ __forceinline__ std::uint32_t sum_at(int sharer, int place) const {
    return w_.shared + (sharer * places_ + place) * 16;
  }

  /// Leaves the sums of each sharer in shared memory. A place's senders are dealt to its sharers in
  /// turn.
  /// @return in lanes 0 and 1, m and l of my_row()
  __device__ __forceinline__ float2 add_partials(Target& target) const {
    float2 row_stats;
    bool weighed = false;
#pragma unroll 1
    for (int from = 0; from < places_; from += kComputeThreads) {
      const int row = row_of_place(first_place_ + place_);
      float4 sum = make_float4(0, 0, 0, 0);
#pragma unroll 1
      for (int first = 0; first < count_; first += kLoads * sharers_) {
        const int begin = first + sharer_;
        float4 x[kLoads];
#pragma unroll
        for (int i = 0; i < kLoads; ++i) {
          const int sender = begin + i * sharers_;
          x[i] = postmark_.empty();
          if (sender < count_) x[i] = look(sums_of(sender) + from * 4);
        }
        const auto look_again = [&] {
#pragma unroll
          for (int i = 0; i < kLoads; ++i) {
            const int sender = begin + i * sharers_;
            if (!postmark_.has_come(x[i])) x[i] = look(sums_of(sender) + from * 4);
          }
        };
        if (!weighed) {
          target = target_of(first_place_ + w_.thread);
          float4 stats[kStatLoads];
          await_stats(stats, look_again);
          row_stats = weigh(stats);
          w_.barrier_of_all();
          weighed = true;
        }
        while (true) {
          bool all = true;
#pragma unroll
          for (int i = 0; i < kLoads; ++i) all = all && postmark_.has_come(x[i]);
          if (__all_sync(0xFFFFFFFFu, all)) break;
          look_again();
        }
#pragma unroll
        for (int i = 0; i < kLoads; ++i) {
          const int sender = min(begin + i * sharers_, count_ - 1);
          const float4 opened = Postmark::open(x[i]);
          const float2 weight = *weights_of(sender, row);
          sum.x += weight.x * opened.x;
          sum.y += weight.y * opened.y;
          sum.z += weight.x * opened.z;
          sum.w += weight.y * opened.w;
        }
      }
      store_shared4(sum_at(sharer_, from + place_), sum.x, sum.y, sum.z, sum.w);
    }
    return row_stats;
  }

  __device__ __forceinline__ void write_rows(const Target& target) const {
#pragma unroll 1
    for (int from = 0; from < places_; from += kComputeThreads) {
      if (target.row == nullptr || from + w_.thread >= places_) continue;
      float o[4] = {0, 0, 0, 0};
#pragma unroll 2
      for (int sharer = 0; sharer < sharers_; ++sharer) {
        const std::uint32_t sums = target.sums + (from + sharer * places_) * 16;
#pragma unroll
        for (int i = 0; i < 4; ++i) o[i] += load_shared(sums + i * 64);
      }
      // 256 places further are 64 elements.
      write_elements(args_.out_type, target.row, target.element + from / 4,
                     make_float4(o[0], o[1], o[2], o[3]));
    }
  }

  const DecodeArgs& args_;
  const Merge& merge_;
  Worker w_;
  Postmark postmark_;
  int count_;
  int stride_;       ///< floats between senders
  int places_;       ///< of the slice, a power of two
  int sharers_;      ///< threads of a place
  int sharer_;       ///< this thread's number among them
  int place_;        ///< this thread's first, of the slice
  int first_place_;  ///< of the slice
  bool writes_lse_;
  const float* stats_;
  const float* sums_;
};

}  // namespace mla::kernels::cuda::sm90::m16
