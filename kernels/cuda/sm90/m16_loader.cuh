#pragma once

#include "kernels/cuda/sm90/m16_block.cuh"

namespace mla::kernels::cuda::sm90::m16 {

/// The warp that fills the ring.
template <int kDQk, int kDV, int kBlocks>
class Loader {
  using L = Layout<kDQk, kDV>;
  using Place = RingPlace<L::kSlots>;

 public:
  __device__ __forceinline__ Loader(const CUtensorMap* map, const DecodeArgs& args,
                                    const LaunchParams& launch, std::uint32_t shared, int team,
                                    int block)
      : map_(map), args_(args), launch_(launch), shared_(shared), block_(block) {
    lane_ = static_cast<int>(threadIdx.x) % 32;
    part_ = read_part(args.parts, team);
    begin_part();
  }

  /// Prepares the copies of the block's first tile, if it has one of whole boxes: so little is left
  /// to do between the grid before and them.
  __device__ __forceinline__ void expect_first_tile() {
    first_page_ = __shfl_sync(0xFFFFFFFFu, next_.page, 0);
    first_token_ = __shfl_sync(0xFFFFFFFFu, next_.slot, 0);
    has_first_ = launch_.boxes_log2 == 0 && part_.rows > 0 && first_page_ >= 0;
    if (!has_first_ || !elect_one()) return;
#pragma unroll
    for (int i = 0; i < L::kTileSlots; ++i) arrive_and_expect(full(place_.plus(i)), L::kSlotBytes);
  }

  /// q, kv and results of earlier kernels must be complete.
  __device__ __forceinline__ void load_first_tile() const {
    if (!has_first_ || !elect_one()) return;
#pragma unroll
    for (int i = 0; i < L::kTileSlots; ++i) {
      const Place place = place_.plus(i);
      load_box(slot(place), map_, full(place), first_token_, i * L::kSlotColumns, part_.kv_head,
               first_page_);
    }
  }

  /// All parts, but for the first tile.
  __device__ __forceinline__ void run() {
    while (true) {
      if (part_.rows > 0) load_part();
      if (part_.next < 0) break;
      part_ = read_part(args_.parts, part_.next);
      begin_part();
    }
  }

 private:
  /// What this lane copies: `slot` of `page`. The block's boxes are numbered one after the other,
  /// over all its tiles; the lane has number 32 i + lane of the i-th batch.
  struct Box {
    int page = -1;  ///< none: past the part's end
    int slot = 0;
  };

  __device__ __forceinline__ void begin_part() {
    batch_ = 0;
    next_ = find_box();
  }

  __device__ __forceinline__ Box find_box() {
    const int number = batch_ * 32 + lane_;
    const int step = number >> launch_.boxes_log2;
    const int box = number - (step << launch_.boxes_log2);
    ++batch_;
    const std::int64_t token = part_.token_begin +
                               (static_cast<std::int64_t>(step) * kBlocks + block_) * kTileTokens +
                               box * launch_.box_tokens;
    if (token >= part_.token_end) return {};
    const auto page_size = static_cast<unsigned>(args_.page_block_size);
    const unsigned page = static_cast<unsigned>(token) / page_size;
    return {__ldg(args_.block_tables + part_.block_table + page),
            static_cast<int>(static_cast<unsigned>(token) - page * page_size)};
  }

  __device__ __forceinline__ void load_part() {
    const int steps = uniform(steps_of<kBlocks>(part_));
    for (int step = 0; step < steps; ++step) {
      if (has_first_) {
        has_first_ = false;
        next_batch();
      } else if (launch_.boxes_log2 == 0) {
        load_tile(step);
      } else {
        load_tile_in_boxes(step);
      }
      place_.advance(L::kTileSlots);
    }
    give_tile();
  }

  /// Gives the computing warps a tile's slots for the end of the part, and tells the cluster that
  /// this block can receive what is sent there.
  __device__ __forceinline__ void give_tile() {
    using S = Slices<kDQk, kDV, kBlocks>;
    for (int i = 0; i < L::kTileSlots; ++i) {
      wait_empty(place_.plus(i));
      if (lane_ == 0) arrive(full(place_.plus(i)));
    }
    place_.advance(L::kTileSlots);
    if constexpr (kBlocks > 1) {
      wait(shared_ + L::kMerged, merged_parity_ ^ 1);
      merged_parity_ ^= 1;
      if (lane_ == 0) {
        arrive_and_expect(shared_ + L::kStatsReceived, kBlocks * kRows * 8);
        arrive_and_expect(shared_ + L::kSlicesReceived, kBlocks * S::kSliceBytes);
      }
      __syncwarp();
      if (lane_ < kBlocks) {
        barrier_arrive_cluster(
            map_to_block(shared_ + L::kReady, static_cast<std::uint32_t>(lane_)));
      }
    }
  }

  __device__ __forceinline__ void next_batch() {
    now_ = next_;
    next_ = find_box();
  }

  __device__ __forceinline__ void load_tile(int step) {
    if (step % 32 == 0) next_batch();
    const int page = __shfl_sync(0xFFFFFFFFu, now_.page, step % 32);
    const int first_token = __shfl_sync(0xFFFFFFFFu, now_.slot, step % 32);
    if (elect_one()) {
#pragma unroll
      for (int i = 0; i < L::kTileSlots; ++i) {
        const Place place = place_.plus(i);
        wait_empty(place);
        if (page >= 0) {
          arrive_and_expect(full(place), L::kSlotBytes);
          load_box(slot(place), map_, full(place), first_token, i * L::kSlotColumns, part_.kv_head,
                   page);
        } else {
          arrive(full(place));
        }
      }
    }
    __syncwarp();
  }

  __device__ __forceinline__ void load_tile_in_boxes(int step) {
    const int boxes = 1 << launch_.boxes_log2;
    const int begin = step << launch_.boxes_log2;
    for (int from = begin; from < begin + boxes; from += 32) {
      if (from % 32 == 0) next_batch();
      const int count = min(boxes, 32);
      const int box = lane_ - from % 32;
      const bool mine = box >= 0 && box < count && now_.page >= 0;
      const int loaded = __popc(__ballot_sync(0xFFFFFFFFu, mine));
      const bool first = from == begin;
      const bool last = from + 32 >= begin + boxes;
      const std::uint32_t offset =
          static_cast<std::uint32_t>((from - begin + box) * launch_.box_tokens * 128);
      for (int i = 0; i < L::kTileSlots; ++i) {
        const Place place = place_.plus(i);
        if (first) wait_empty(place);
        const int bytes = loaded * launch_.box_tokens * 128 * L::kSlotColumns;
        if (lane_ == 0) expect(full(place), bytes, last);
        __syncwarp();
        if (!mine) continue;
        for (int column = 0; column < L::kSlotColumns; ++column) {
          load_box(slot(place) + column * L::kColumnBytes + offset, map_, full(place), now_.slot,
                   i * L::kSlotColumns + column, part_.kv_head, now_.page);
        }
      }
    }
  }

  __device__ __forceinline__ void expect(std::uint32_t barrier, int bytes, bool last) const {
    if (last) {
      arrive_and_expect(barrier, bytes);
    } else {
      asm volatile("mbarrier.expect_tx.relaxed.cta.shared::cta.b64 [%0], %1;" ::"r"(barrier),
                   "r"(bytes)
                   : "memory");
    }
  }
  __device__ __forceinline__ std::uint32_t slot(Place place) const {
    return shared_ + place.slot * L::kSlotBytes;
  }
  __device__ __forceinline__ std::uint32_t full(Place place) const {
    return shared_ + L::kFull + place.slot * 8;
  }
  __device__ __forceinline__ void wait_empty(Place place) const {
    wait(shared_ + L::kEmpty + place.slot * 8, place.parity ^ 1);
  }

  const CUtensorMap* map_;
  const DecodeArgs& args_;
  const LaunchParams& launch_;
  std::uint32_t shared_;
  int block_;
  int lane_;
  int batch_ = 0;
  Part part_;
  Box now_;
  Box next_;
  Place place_;
  std::uint32_t merged_parity_ = 0;
  bool has_first_ = false;  ///< the first tile is being loaded
  int first_page_ = 0;
  int first_token_ = 0;
};

}  // namespace mla::kernels::cuda::sm90::m16
