#pragma once

#include <bit>

#include "kernels/cuda/sm90/m16_mailbox.cuh"
#include "kernels/cuda/sm90/m16_worker.cuh"

namespace mla::kernels::cuda::sm90::m16 {

/// The end of a cluster's part: its sums go from the registers of the team's blocks to those that
/// merge them, by the slice (`Slices`), and from there to memory, or by mail to the teams that
/// share the rows. `given` are the slots of a tile that the loader gave for it.
///
/// A piece has four floats of a lane (rows r and r + 1 of element e, then of e + 8) beside those of
/// the next, the lower eight rows first: so they lie in the accumulators.
template <int kDQk, int kDV, int kBlocks>
class TeamSum {
  using L = Layout<kDQk, kDV>;
  using S = Slices<kDQk, kDV, kBlocks>;
  using Place = RingPlace<L::kSlots>;
  static constexpr int kHalf = L::kValueColumns / 2;

 public:
  __device__ __forceinline__ TeamSum(const DecodeArgs& args, const Worker& worker, Place given,
                                     std::uint32_t parity, std::uint32_t launches)
      : args_(args), w_(worker), given_(given), parity_(parity), postmark_(launches) {
    w_.forget();
    part_ = w_.pointer<const Part>(L::kPart);
    is_mail_ = part_->partial.offset >= 0;
    box_ = {args.partials + part_->partial.offset};
  }

  /// Adds what the groups and blocks have, and writes this block's elements.
  __device__ __forceinline__ void run(const float (&m)[4], const float (&l)[4],
                                      const float (&o)[L::kValueColumns][8]) const {
    hand_over(m, l, o);
    w_.barrier_of_all();
    barrier_wait_cluster(w_.shared + L::kReady, parity_);
    send_stats();
    add_groups(m, o);
    barrier_wait_cluster(w_.shared + L::kStatsReceived, parity_);
    weigh_blocks();
    w_.barrier_of_all();
    barrier_wait_cluster(w_.shared + L::kSlicesReceived, parity_);
    add_slices();
    if (!is_mail_) {
      w_.barrier_of_all();
      write_merged();
    }
    if (part_->next >= 0) release_given();
  }

 private:
  /// Byte `offset` of the given slots, behind the beginning of shared memory.
  __device__ __forceinline__ int given(int offset) const {
    const int at = given_.slot * L::kSlotBytes + offset;
    return at < L::kRingBytes ? at : at - L::kRingBytes;
  }
  /// Where this lane's sums of a piece are handed over.
  __device__ __forceinline__ std::uint32_t handed(int piece, int half) const {
    return w_.shared + given(S::kHanded + piece * S::kPieceBytes) + half * (S::kPieceBytes / 2) +
           w_.lane * 16;
  }
  /// This warp's piece of column `i` of the half that a group merges.
  __device__ __forceinline__ int piece_of(int group, int i) const {
    return (group * kHalf + i) * 4 + w_.warp;
  }
  /// A row's element after merging, of this block's. Swizzled so that neither writers nor readers
  /// meet in a bank.
  __device__ __forceinline__ std::uint32_t merged(int row, int element) const {
    const int at =
        element / 64 * (kRows * 64 * 4) + (row * 64 + ((element % 64) ^ (row / 2 % 4 * 8))) * 4;
    return w_.shared + given(S::kHanded + at);
  }

  /// Shows the other group this one's m and sums, and gives it the half of o that it will keep.
  __device__ __forceinline__ void hand_over(const float (&m)[4], const float (&l)[4],
                                            const float (&o)[L::kValueColumns][8]) const {
    const float sum = w_.over_lanes(l, [](float a, float b) { return a + b; });
    const std::uint32_t sums = w_.shared + L::kSums + w_.group * (kRows * kGroupWarps * 4);
    if ((w_.lane & 4) == 0) {
      store_shared(sums + (w_.reduced_row() * kGroupWarps + w_.warp) * 4, sum);
    }
    if (w_.warp == 0 && w_.lane < 4) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        store_shared(w_.shared + L::kGroupM + (w_.group * kRows + w_.row_of(i)) * 4, m[i]);
      }
    }
    for (int i = 0; i < L::kTileSlots; ++i) {
      const Place place = given_.plus(i);
      wait(w_.shared + L::kFull + place.slot * 8, place.parity);
    }
#pragma unroll
    for (int i = 0; i < kHalf; ++i) {
      float give[8];
#pragma unroll
      for (int j = 0; j < 8; ++j) give[j] = w_.group == 0 ? o[kHalf + i][j] : o[i][j];
      const int piece = piece_of(1 - w_.group, i);
      store_shared4(handed(piece, 0), give[0], give[1], give[2], give[3]);
      store_shared4(handed(piece, 1), give[4], give[5], give[6], give[7]);
    }
  }

  /// Adds what the other group handed over to this one's half, and sends it to the blocks.
  __device__ __forceinline__ void add_groups(const float (&m)[4],
                                             const float (&o)[L::kValueColumns][8]) const {
    const float* group_m = w_.pointer<const float>(L::kGroupM);
    float mine[4];
    float other[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float other_m = group_m[(1 - w_.group) * kRows + w_.row_of(i)];
      const float base = base_of(fmaxf(m[i], other_m));
      mine[i] = exp2_fast(m[i] - base);
      other[i] = exp2_fast(other_m - base);
    }
#pragma unroll
    for (int i = 0; i < kHalf; ++i) {
      const int piece = piece_of(w_.group, i);
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const float4 received = load_shared4(handed(piece, half));
        float keep[4];
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          keep[j] = w_.group == 0 ? o[i][half * 4 + j] : o[kHalf + i][half * 4 + j];
        }
        const float mine0 = mine[half * 2];
        const float mine1 = mine[half * 2 + 1];
        const float other0 = other[half * 2];
        const float other1 = other[half * 2 + 1];
        const int block = S::owner(piece);
        const int at = w_.block * S::kSliceBytes + (piece - S::begin(block)) * S::kPieceBytes;
        const std::uint32_t shared = map_to_block(w_.shared, static_cast<std::uint32_t>(block));
        send(shared + given(at) + half * (S::kPieceBytes / 2) + w_.lane * 16,
             make_float4(
                 keep[0] * mine0 + received.x * other0, keep[1] * mine1 + received.y * other1,
                 keep[2] * mine0 + received.z * other0, keep[3] * mine1 + received.w * other1),
             shared + L::kSlicesReceived);
      }
    }
  }

  __device__ __forceinline__ float2 block_stats(int row) const {
    const float* group_m = w_.pointer<const float>(L::kGroupM);
    const float m = fmaxf(group_m[row], group_m[kRows + row]);
    float l = 0;
#pragma unroll
    for (int g = 0; g < kGroups; ++g) {
      const float4 sums = load_shared4(w_.shared + L::kSums + (g * kRows + row) * 16);
      const float of_group = group_m[g * kRows + row];
      const float sum = (sums.x + sums.y) + (sums.z + sums.w);
      l += sum * exp2_fast(of_group - base_of(m));
    }
    return make_float2(m, l);
  }

  /// Sends the block's m and l of all rows to all blocks.
  __device__ __forceinline__ void send_stats() const {
    const int row = w_.thread % kRows;
    const int block = w_.thread / kRows;
    if (block >= kBlocks) return;
    const std::uint32_t shared = map_to_block(w_.shared, static_cast<std::uint32_t>(block));
    send(shared + L::kStats + (w_.block * kRows + row) * 8, block_stats(row),
         shared + L::kStatsReceived);
  }

  /// What a finished row's sums are multiplied by; a partial's are not.
  __device__ __forceinline__ float final_scale(float l) const {
    return is_mail_ ? 1 : inverse_of(l);
  }

  /// Makes the blocks' weights. All blocks mail the rows' m and l, or the first writes their lse.
  __device__ __forceinline__ void weigh_blocks() const {
    static_assert(std::has_single_bit(static_cast<unsigned>(kBlocks)));
    const int block = w_.thread % kBlocks;
    const int row = w_.thread / kBlocks;
    if (row >= kRows) return;
    const float2 stats = *w_.pointer<const float2>(L::kStats + (block * kRows + row) * 8);
    float m = stats.x;
#pragma unroll
    for (int distance = 1; distance < kBlocks; distance *= 2) {
      m = fmaxf(m, __shfl_xor_sync(0xFFFFFFFFu, m, distance));
    }
    const float weight = exp2_fast(stats.x - base_of(m));
    float l = weight * stats.y;
#pragma unroll
    for (int distance = 1; distance < kBlocks; distance *= 2) {
      l += __shfl_xor_sync(0xFFFFFFFFu, l, distance);
    }
    store_shared(w_.shared + L::kWeights + (block * kRows + row) * 4, weight * final_scale(l));
    if (is_mail_) {
      for (int slice = block; slice < part_->slices; slice += kBlocks) {
        postmark_.send(box_.stats(w_.block * part_->slices + slice) + row * 2, make_float2(m, l));
      }
    } else if (w_.block == 0 && block == 0) {
      write_lse(row, m, l);
    }
  }

  /// Adds the slices of all blocks. Lanes may share a place, each with some blocks.
  __device__ __forceinline__ void add_slices() const {
    constexpr int kPlaces = S::kSliceBytes / 16;
    constexpr int kSplit = kPlaces * 4 <= kComputeThreads   ? 4
                           : kPlaces * 2 <= kComputeThreads ? 2
                                                            : 1;
    constexpr int kLanes = 32 / kSplit;
    constexpr int kAdded = kBlocks / kSplit;
    static_assert(kBlocks % kSplit == 0 && kPlaces * kSplit % kComputeThreads == 0);
    const int first = w_.lane / kLanes * kAdded;
#pragma unroll
    for (int from = 0; from < kPlaces; from += kComputeThreads / kSplit) {
      const int place = from + w_.thread / 32 * kLanes + w_.lane % kLanes;
      const int row = row_of_place(place);
      float4 sum = make_float4(0, 0, 0, 0);
#pragma unroll
      for (int i = 0; i < kAdded; ++i) {
        const float4 x = load_shared4(w_.shared + given((first + i) * S::kSliceBytes + place * 16));
        const float2 weight =
            *w_.pointer<const float2>(L::kWeights + ((first + i) * kRows + row) * 4);
        sum.x += weight.x * x.x;
        sum.y += weight.y * x.y;
        sum.z += weight.x * x.z;
        sum.w += weight.y * x.w;
      }
#pragma unroll
      for (int distance = kLanes; distance < 32; distance *= 2) {
        sum.x += __shfl_xor_sync(0xFFFFFFFFu, sum.x, distance);
        sum.y += __shfl_xor_sync(0xFFFFFFFFu, sum.y, distance);
        sum.z += __shfl_xor_sync(0xFFFFFFFFu, sum.z, distance);
        sum.w += __shfl_xor_sync(0xFFFFFFFFu, sum.w, distance);
      }
      if (first == 0) take_merged(place, sum);
    }
  }

  /// A place's sums, of this block's columns.
  __device__ __forceinline__ void take_merged(int place, float4 sums) const {
    if (is_mail_) {
      postmark_.send(box_.sums(S::begin(w_.block) * 64 + place), sums);
      return;
    }
    const int element = place / 64 * 16 + place % 32 / 4;
    const int row = row_of_place(place);
    store_shared(merged(row, element), sums.x);
    store_shared(merged(row + 1, element), sums.y);
    store_shared(merged(row, element + 8), sums.z);
    store_shared(merged(row + 1, element + 8), sums.w);
  }

  __device__ __forceinline__ void write_lse(int row, float m, float l) const {
    if (row < part_->rows) *w_.pointer<const RowPlace>(L::kRowPlaces)[row].lse = lse_of(m, l);
  }

  /// Writes this block's elements of all rows.
  __device__ __forceinline__ void write_merged() const {
    constexpr int kVectors = S::kSlicePieces * 4;  // of a row
    const int first = S::begin(w_.block) * 16;
    const int places = part_->rows * kVectors;
#pragma unroll
    for (int from = 0; from < kRows * kVectors; from += kComputeThreads) {
      const int place = from + w_.thread;
      if (place >= places) break;
      const int row = place / kVectors;
      const int vector = place % kVectors;
      const float4 o = load_shared4(merged(row, vector * 4));
      char* out = w_.pointer<const RowPlace>(L::kRowPlaces)[row].out;
      write_elements(args_.out_type, out, first + vector * 4, o);
    }
  }

  /// The given slots are the loader's again.
  __device__ __forceinline__ void release_given() const {
    fence_async_proxy();
    w_.barrier_of_all();
    if (w_.thread == 0) arrive(w_.shared + L::kMerged);
    if (w_.group == 0 && w_.lane == 0) {
      for (int i = 0; i < L::kTileSlots; ++i) {
        arrive(w_.shared + L::kEmpty + given_.plus(i).slot * 8);
      }
    }
  }

  const DecodeArgs& args_;
  Worker w_;
  Place given_;
  std::uint32_t parity_;
  const Part* part_;
  bool is_mail_;  ///< other teams have keys of these rows
  Mailbox<kDV> box_;
  Postmark postmark_;
};

}  // namespace mla::kernels::cuda::sm90::m16
