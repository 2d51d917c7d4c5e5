#pragma once

#include "kernels/cuda/sm90/m16_mailbox.cuh"
#include "kernels/cuda/sm90/m16_worker.cuh"

namespace mla::kernels::cuda::sm90::m16 {

/// The end of a lone block's part: one group adds the other's sums to its own and finishes the
/// rows, or mails them to the blocks that share them. It runs once in a launch or a few times, so
/// its instructions come from memory rather than from a cache: short code is what counts.
///
/// `given` are the slots of a tile that the loader gave for it. Four columns of sums, 16 KB, lie at
/// the beginning of one, eight in two.
template <int kDQk, int kDV>
class PartSum {
  using L = Layout<kDQk, kDV>;
  using Place = RingPlace<L::kSlots>;
  static constexpr int kColumnsOfSlot = 4;
  static constexpr int kColumnBytes = kRows * 64 * 4;

 public:
  __device__ __forceinline__ PartSum(const DecodeArgs& args, const Worker& worker, Place given,
                                     std::uint32_t launches)
      : args_(args), w_(worker), given_(given), postmark_(launches) {
    w_.forget();
    part_ = w_.pointer<const Part>(L::kPart);
    is_mail_ = part_->partial.offset >= 0;
    box_ = {args.partials + part_->partial.offset};
  }

  /// The group that has no more tiles: gives its sums to the other one.
  __device__ __forceinline__ void hand_over(const float (&m)[4], const float (&l)[4],
                                            const float (&o)[L::kValueColumns][8]) const {
    show_stats(m, l);
    put_sums(o);
    w_.barrier_of_all();
    finish_stats();
    finish();
  }

  /// The other one, in this order: `begin`, `add` for each column, `end`.
  __device__ __forceinline__ void begin(const float (&m)[4], const float (&l)[4]) {
    show_stats(m, l);
    w_.barrier_of_all();
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float other_m = load_shared(group_m(1 - w_.group) + w_.row_of(i) * 4);
      const float base = base_of(fmaxf(m[i], other_m));
      mine_[i] = exp2_fast(m[i] - base);
      other_[i] = exp2_fast(other_m - base);
    }
  }

  /// Adds what the other group handed over of column `i`, and mails it.
  __device__ __forceinline__ void add(int i, const float (&o)[8], float (&sums)[8]) const {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float4 x = load_shared4(handed(i, half));
      const float* mine = o + half * 4;
      float* sum = sums + half * 4;
      sum[0] = mine[0] * mine_[half * 2] + x.x * other_[half * 2];
      sum[1] = mine[1] * mine_[half * 2 + 1] + x.y * other_[half * 2 + 1];
      sum[2] = mine[2] * mine_[half * 2] + x.z * other_[half * 2];
      sum[3] = mine[3] * mine_[half * 2 + 1] + x.w * other_[half * 2 + 1];
      if (is_mail_) {
        postmark_.send(box_.sums(w_.warp * 64 + w_.lane) + i * 1024 + half * 128,
                       make_float4(sum[0], sum[1], sum[2], sum[3]));
      }
    }
  }

  __device__ __forceinline__ void end(const float (&o)[L::kValueColumns][8]) const {
    if (!is_mail_) {
      w_.group_barrier();
      put_rows(o);
    }
    finish();
  }

 private:
  __device__ __forceinline__ std::uint32_t columns(int i) const {
    return w_.shared + given_.plus(i / kColumnsOfSlot).slot * L::kSlotBytes;
  }
  /// Where a lane's four sums of column `i` lie, as in a mailbox.
  __device__ __forceinline__ std::uint32_t handed(int i, int half) const {
    return columns(i) + (w_.warp * 1024 + w_.lane * 16) + i % kColumnsOfSlot * kColumnBytes +
           half * 512;
  }
  __device__ __forceinline__ std::uint32_t group_m(int group) const {
    return w_.shared + L::kGroupM + group * (kRows * 4);
  }

  __device__ __forceinline__ void show_stats(const float (&m)[4], const float (&l)[4]) const {
    const float sum = w_.over_lanes(l, [](float a, float b) { return a + b; });
    const std::uint32_t sums = w_.shared + L::kSums + w_.group * (kRows * kGroupWarps * 4);
    if ((w_.lane & 4) == 0) {
      store_shared(sums + (w_.reduced_row() * kGroupWarps + w_.warp) * 4, sum);
    }
    if (w_.warp == 0 && w_.lane < 4) {
#pragma unroll
      for (int i = 0; i < 4; ++i) store_shared(group_m(w_.group) + w_.row_of(i) * 4, m[i]);
    }
  }

  __device__ __forceinline__ void put_sums(const float (&o)[L::kValueColumns][8]) const {
    for (int i = 0; i < L::kTileSlots; ++i) {
      const Place place = given_.plus(i);
      wait(w_.shared + L::kFull + place.slot * 8, place.parity);
    }
#pragma unroll
    for (int i = 0; i < L::kValueColumns; ++i) {
      store_shared4(handed(i, 0), o[i][0], o[i][1], o[i][2], o[i][3]);
      store_shared4(handed(i, 1), o[i][4], o[i][5], o[i][6], o[i][7]);
    }
  }

  __device__ __forceinline__ void finish() const {
    if (!is_mail_) {
      w_.barrier_of_all();
      write_rows();
    }
    if (part_->next >= 0) release_given();
  }

  /// One group: m and l of the rows to all blocks that share them, or their lse to memory and what
  /// the sums are to be multiplied by to shared memory.
  __device__ __forceinline__ void finish_stats() const {
    const int row = w_.thread % kRows;
    const float m0 = load_shared(group_m(0) + row * 4);
    const float m1 = load_shared(group_m(1) + row * 4);
    const float m = fmaxf(m0, m1);
    const std::uint32_t sums = w_.shared + L::kSums + row * 16;
    const float4 l0 = load_shared4(sums);
    const float4 l1 = load_shared4(sums + kRows * 16);
    const float base = base_of(m);
    const float l = ((l0.x + l0.y) + (l0.z + l0.w)) * exp2_fast(m0 - base) +
                    ((l1.x + l1.y) + (l1.z + l1.w)) * exp2_fast(m1 - base);
    const int first = w_.thread % kGroupThreads / kRows;
    if (is_mail_) {
#pragma unroll 1
      for (int slice = first; slice < part_->slices; slice += kGroupThreads / kRows) {
        postmark_.send(box_.stats(slice) + row * 2, make_float2(m, l));
      }
    } else if (first == 0) {
      store_shared(w_.shared + L::kScales + row * 4, inverse_of(l));
      if (row < part_->rows) *w_.pointer<const RowPlace>(L::kRowPlaces)[row].lse = lse_of(m, l);
    }
  }

  /// A row's element in shared memory, swizzled so that neither writers nor readers meet in a bank.
  static __device__ __forceinline__ int in_column(int row, int element) {
    return (row * 64 + (element ^ (row / 2 % 4 * 8))) * 4;
  }
  __device__ __forceinline__ std::uint32_t column_of_rows(int i) const {
    return columns(i) + i % kColumnsOfSlot * kColumnBytes;
  }

  __device__ __forceinline__ void put_rows(const float (&o)[L::kValueColumns][8]) const {
    const int row = 2 * (w_.lane % 4);
    const int element = w_.warp * 16 + w_.lane / 4;
    const int first = in_column(row, element);
    const int second = in_column(row, element + 8);
#pragma unroll
    for (int i = 0; i < L::kValueColumns; ++i) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const std::uint32_t to = column_of_rows(i) + half * (8 * 64 * 4);
        store_shared(to + first, o[i][half * 4]);
        store_shared(to + first + 64 * 4, o[i][half * 4 + 1]);
        store_shared(to + second, o[i][half * 4 + 2]);
        store_shared(to + second + 64 * 4, o[i][half * 4 + 3]);
      }
    }
  }

  __device__ __forceinline__ void write_rows() const {
    constexpr int kVectors = kDV / 4;  // of a row
    const int vector = w_.thread % kVectors;
    const std::uint32_t column = column_of_rows(vector / 16);
#pragma unroll 1
    for (int row = w_.thread / kVectors; row < part_->rows; row += kComputeThreads / kVectors) {
      const float4 o = load_shared4(column + in_column(row, vector % 16 * 4));
      const float scale = load_shared(w_.shared + L::kScales + row * 4);
      write_elements(args_.out_type, w_.pointer<const RowPlace>(L::kRowPlaces)[row].out, vector * 4,
                     make_float4(o.x * scale, o.y * scale, o.z * scale, o.w * scale));
    }
  }

  /// The given slots are the loader's again.
  __device__ __forceinline__ void release_given() const {
    __syncwarp();
    fence_async_proxy();
    w_.barrier_of_all();
    if (w_.group == 0 && w_.lane == 0) {
      for (int i = 0; i < L::kTileSlots; ++i) {
        arrive(w_.shared + L::kEmpty + given_.plus(i).slot * 8);
      }
    }
  }

  const DecodeArgs& args_;
  Worker w_;
  Place given_;
  Postmark postmark_;
  const Part* part_;
  bool is_mail_;  ///< other teams have keys of these rows
  Mailbox<kDV> box_;
  float mine_[4];   ///< what this group's sums are to be multiplied by
  float other_[4];  ///< ... and the other's
};

}  // namespace mla::kernels::cuda::sm90::m16
