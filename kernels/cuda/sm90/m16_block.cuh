#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "kernels/cuda/decode_args.h"
#include "kernels/cuda/sm90/ptx_m16.cuh"

/// What one block of decode_m16 does: see docs/hopper_m16.md for the whole picture.
namespace mla::kernels::cuda::m16 {

inline constexpr int kRows = 16;         ///< query rows of a part; the N of all products
inline constexpr int kTileTokens = 64;   ///< keys of a block's step; the M of the score products
inline constexpr int kGroups = 2;        ///< warpgroups that compute, each on tiles of its own
inline constexpr int kGroupThreads = 128;
inline constexpr int kComputeThreads = kGroups * kGroupThreads;
inline constexpr int kThreads = kComputeThreads + 32;  ///< and a warp that loads
inline constexpr int kGroupWarps = kGroupThreads / 32;

/// Where things lie in shared memory. The ring's slots hold 64 tokens x 64 elements of the cache,
/// or at the end of a part pieces of the block's partial.
template <int kDQk, int kDV>
struct Layout {
  static constexpr int kColumns = kDQk / 64;       ///< column blocks of a tile
  static constexpr int kValueColumns = kDV / 64;   ///< those that are values too
  static constexpr int kSlots = 25;
  static constexpr int kSlotBytes = kTileTokens * 128;
  static constexpr int kQ = kSlots * kSlotBytes;   ///< [column][16 rows][128 bytes]
  static constexpr int kP = kQ + kColumns * kRows * 128;  ///< [group][16 rows][128 bytes]
  static constexpr int kMaxima = kP + kGroups * kRows * 128;     ///< float [group][warp][16 rows]
  static constexpr int kSums = kMaxima + kGroups * kGroupWarps * kRows * 4;  ///< likewise
  static constexpr int kGroupM = kSums + kGroups * kGroupWarps * kRows * 4;  ///< float [group][16]
  static constexpr int kStats = kGroupM + kGroups * kRows * 4;  ///< float2 (m, l) [16 rows]
  static constexpr int kFull = kStats + kRows * 8;              ///< mbarrier [slot]
  static constexpr int kEmpty = kFull + kSlots * 8;             ///< mbarrier [slot]
  static constexpr int kPartialsReady = kEmpty + kSlots * 8;    ///< mbarrier of the cluster
  static constexpr int kPartialsRead = kPartialsReady + 8;      ///< mbarrier of the cluster
  static constexpr int kBytes = kPartialsRead + 8;
  static_assert(kBytes <= 227 * 1024);
  static_assert(kColumns == kValueColumns + 1 && kValueColumns % 4 == 0);
};

/// What a launch adds to DecodeArgs.
struct LaunchParams {
  int box_tokens = 64;  ///< tokens that one copy brings: they lie in one page
  int boxes_log2 = 0;   ///< copies that a column of a tile takes, 64 / box_tokens
};

/// A place in the ring: the slot, and the parity of the round.
template <int kSlots>
struct RingPlace {
  int slot = 0;
  std::uint32_t parity = 0;

  __device__ __forceinline__ void advance(int slots) {
    slot += slots;
    if (slot >= kSlots) {
      slot -= kSlots;
      parity ^= 1;
    }
  }
  __device__ __forceinline__ void advance_far(int slots) {
    const int rounds = slots / kSlots;
    parity ^= static_cast<std::uint32_t>(rounds & 1);
    advance(slots - rounds * kSlots);
  }
  __device__ __forceinline__ RingPlace plus(int slots) const {
    RingPlace place = *this;
    place.advance(slots);
    return place;
  }
};

/// `value`, which is the same in all lanes, so that the compiler knows it.
__device__ __forceinline__ int uniform(int value) {
  return __shfl_sync(0xFFFFFFFFu, value, 0);
}

/// Tiles of a part that each block of the team has to step over. A block takes every kBlocks-th;
/// in the last step some may have none.
template <int kBlocks>
__device__ __forceinline__ int steps_of(const Part& part) {
  const int tokens = part.token_end - part.token_begin;
  return (tokens + kTileTokens * kBlocks - 1) / (kTileTokens * kBlocks);
}

__device__ __forceinline__ Part read_part(const Part* parts, int index) {
  Part part;
  const auto* from = reinterpret_cast<const int4*>(parts + index);
  auto* to = reinterpret_cast<int4*>(&part);
#pragma unroll
  for (int i = 0; i < static_cast<int>(sizeof(Part) / sizeof(int4)); ++i) to[i] = __ldg(from + i);
  return part;
}

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

  /// All parts; q, kv and results of earlier kernels must be complete.
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
    const int steps = steps_of<kBlocks>(part_);
    for (int step = 0; step < steps; ++step) {
      load_tile(step);
      place_.advance(L::kColumns);
    }
    for (int i = 0; i < L::kValueColumns; ++i) {
      const Place place = place_.plus(i);
      wait_empty(place);
      if (lane_ == 0) barrier_arrive(full(place));
    }
    place_.advance(L::kValueColumns);
  }

  __device__ __forceinline__ void load_tile(int step) {
    const int boxes = 1 << launch_.boxes_log2;
    const int begin = step << launch_.boxes_log2;
    for (int from = begin; from < begin + boxes; from += 32) {
      if (from % 32 == 0) {
        now_ = next_;
        next_ = find_box();
      }
      const int count = min(boxes, 32);
      const int box = lane_ - from % 32;
      const bool mine = box >= 0 && box < count && now_.page >= 0;
      const int loaded = __popc(__ballot_sync(0xFFFFFFFFu, mine));
      const bool first = from == begin;
      const bool last = from + 32 >= begin + boxes;
      const std::uint32_t offset =
          static_cast<std::uint32_t>((from - begin + box) * launch_.box_tokens * 128);
#pragma unroll
      for (int i = 0; i < L::kColumns; ++i) {
        // The column that is no value comes first: it is done with first.
        const int column = (i + L::kValueColumns) % L::kColumns;
        const Place place = place_.plus(i);
        if (first) wait_empty(place);
        if (lane_ == 0) expect(full(place), loaded * launch_.box_tokens * 128, last);
        __syncwarp();
        if (mine) {
          load_box(slot(place) + offset, map_, full(place), column * 64, now_.slot, part_.kv_head,
                   now_.page);
        }
      }
    }
  }

  __device__ __forceinline__ void expect(std::uint32_t barrier, int bytes, bool last) const {
    if (last) {
      barrier_arrive_expecting(barrier, bytes);
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
    barrier_wait(shared_ + L::kEmpty + place.slot * 8, place.parity ^ 1);
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
};

/// The warps that compute.
template <bool kBf16, int kDQk, int kDV, int kBlocks>
class Computer {
  using L = Layout<kDQk, kDV>;
  using Place = RingPlace<L::kSlots>;
  static constexpr int kAll = 3;  // named barrier of the computing warps; 1 and 2: of a group

 public:
  __device__ __forceinline__ Computer(const DecodeArgs& args, std::uint32_t shared, int team,
                                      int block)
      : args_(args), shared_(shared), block_(block) {
    thread_ = static_cast<int>(threadIdx.x);
    group_ = uniform(thread_ / kGroupThreads);
    warp_ = uniform(thread_ % kGroupThreads / 32);
    lane_ = thread_ % 32;
    part_ = args.parts + team;
  }

  __device__ __forceinline__ void run() {
    while (true) {
      if (uniform(part_->rows) > 0) compute_part();
      const int next = uniform(part_->next);
      if (next < 0) break;
      part_ = args_.parts + next;
    }
  }

 private:
  /// Lane's rows: row_of(0..3), as the columns of its accumulators.
  __device__ __forceinline__ int row_of(int i) const {
    return 2 * (lane_ % 4) + (i & 1) + (i >> 1) * 8;
  }
  __device__ __forceinline__ int visible_end(int row) const {
    if (!args_.causal) return part_->token_end;
    const int query = (part_->row_begin + min(row, part_->rows - 1)) / part_->heads;
    return min(part_->token_end, part_->context_len - (part_->query_len - 1 - query));
  }

  __device__ __forceinline__ void compute_part() {
    store_q();
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      m_[i] = -INFINITY;
      l_[i] = 0;
      visible_[i] = visible_end(row_of(i));
    }
    all_see_ = visible_end(0);
#pragma unroll
    for (int i = 0; i < L::kValueColumns; ++i) {
#pragma unroll
      for (int j = 0; j < 8; ++j) o_[i][j] = 0;
    }
    const int steps = uniform(steps_of<kBlocks>(*part_));
    const int first = uniform(part_->token_begin) + block_ * kTileTokens;
    token_end_ = uniform(part_->token_end);
    const Place part_place = place_;
    if (group_ == 1) place_.advance(L::kColumns);
    for (int step = group_; step < steps; step += kGroups) {
      const std::int64_t begin = first + static_cast<std::int64_t>(step) * (kBlocks * kTileTokens);
      if (begin < token_end_) {
        compute_tile(static_cast<int>(begin));
      } else {
        skip_tile();
      }
      place_.advance(kGroups * L::kColumns);
    }
    place_ = part_place;
    place_.advance_far(steps * L::kColumns);
    finish_part();
    place_.advance(L::kValueColumns);
  }

  __device__ __forceinline__ void store_q() const {
    constexpr int kChunks = kDQk / 8;
    constexpr int kEach = (kRows * kChunks + kComputeThreads - 1) / kComputeThreads;
    uint4 chunks[kEach];
#pragma unroll
    for (int i = 0; i < kEach; ++i) {
      const int n = i * kComputeThreads + thread_;
      const int row = n / kChunks;
      chunks[i] = make_uint4(0, 0, 0, 0);
      if (row < part_->rows) {
        const int item_row = part_->row_begin + row;
        const std::uint16_t* q = args_.q + part_->q +
                                 item_row / part_->heads * args_.q_token_stride +
                                 item_row % part_->heads * args_.q_head_stride;
        chunks[i] = __ldg(reinterpret_cast<const uint4*>(q) + n % kChunks);
      }
    }
#pragma unroll
    for (int i = 0; i < kEach; ++i) {
      const int n = i * kComputeThreads + thread_;
      const int row = n / kChunks;
      const int chunk = n % kChunks;
      if (row < kRows) {
        store_shared(shared_ + L::kQ + chunk / 8 * (kRows * 128) + row * 128 +
                         ((chunk % 8) ^ (row % 8)) * 16,
                     chunks[i]);
      }
    }
    fence_async_proxy();
    named_barrier<kAll, kComputeThreads>();
  }

  /// Scores, weights and values of the tile that begins at token `begin`.
  __device__ __forceinline__ void compute_tile(int begin) {
    float s[8];
#pragma unroll
    for (int i = 0; i < L::kColumns; ++i) {
      const int column = (i + L::kValueColumns) % L::kColumns;
      wait_full(place_.plus(i));
      wgmma_fence();
      const std::uint64_t k = matrix_at(slot(place_.plus(i)));
      const std::uint64_t q = matrix_at(shared_ + L::kQ + column * (kRows * 128));
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        wgmma_64x16x16<kBf16, false>(s, moved(k, j * 32), moved(q, j * 32), i + j > 0);
      }
    }
    wgmma_commit();
    wgmma_wait<0>();
    release(place_);
    forget();

    const int token = begin + warp_ * 16 + lane_ / 4;
#pragma unroll
    for (int i = 0; i < 8; ++i) s[i] *= args_.scale_log2;
    if (begin + kTileTokens > all_see_) {
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        if (token + ((i >> 1) & 1) * 8 >= visible_[row_index(i)]) s[i] = -INFINITY;
      }
    }
    float new_m[4];
    tile_maxima(s, new_m);
    if (begin + kTileTokens > token_end_) clear_values(token_end_ - begin);
    rescale(new_m);

    float base[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) base[i] = m_[i] == -INFINITY ? 0 : m_[i];
    std::uint32_t p[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int row = (i >> 1) * 2;
      p[i] = pack<kBf16>(fast_exp2(s[2 * i] - base[row]), fast_exp2(s[2 * i + 1] - base[row + 1]));
      const float2 rounded = unpack<kBf16>(p[i]);
      l_[row] += rounded.x;
      l_[row + 1] += rounded.y;
    }
    const std::uint32_t weights = shared_ + L::kP + group_ * (kRows * 128);
    const int p_row = lane_ % 8 + (lane_ / 16) * 8;
    const int p_chunk = warp_ * 2 + (lane_ / 8) % 2;
    store_matrices_transposed(weights + p_row * 128 + ((p_chunk ^ (p_row % 8)) * 16), p[0], p[1],
                              p[2], p[3]);
    fence_async_proxy();
    group_barrier();

    wgmma_fence();
    const std::uint64_t p_matrix = matrix_at(weights);
#pragma unroll
    for (int i = 0; i < L::kValueColumns; ++i) {
      const std::uint64_t v = matrix_at(slot(place_.plus(i + 1)));
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        wgmma_64x16x16<kBf16, true>(o_[i], moved(v, j * 2048), moved(p_matrix, j * 32), true);
      }
      if (i == L::kValueColumns / 2 - 1) wgmma_commit();
    }
    wgmma_commit();
    wgmma_wait<1>();
#pragma unroll
    for (int i = 0; i < L::kValueColumns / 2; ++i) release(place_.plus(i + 1));
    wgmma_wait<0>();
#pragma unroll
    for (int i = L::kValueColumns / 2; i < L::kValueColumns; ++i) release(place_.plus(i + 1));
  }

  /// Which of the lane's four rows accumulator element `i` of a product belongs to.
  static __device__ __forceinline__ constexpr int row_index(int i) {
    return (i & 1) | ((i >> 2) << 1);
  }

  /// The largest of m_ and the group's scores.
  __device__ __forceinline__ void tile_maxima(const float (&s)[8], float (&new_m)[4]) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int first = (i & 1) | ((i >> 1) << 2);
      new_m[i] = fmaxf(s[first], s[first + 2]);
    }
#pragma unroll
    for (int distance = 4; distance < 32; distance *= 2) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        new_m[i] = fmaxf(new_m[i], __shfl_xor_sync(0xFFFFFFFFu, new_m[i], distance));
      }
    }
    float* maxima = pointer<float>(L::kMaxima) + group_ * (kGroupWarps * kRows);
    if (lane_ < 4) {
#pragma unroll
      for (int i = 0; i < 4; ++i) maxima[warp_ * kRows + row_of(i)] = new_m[i];
    }
    group_barrier();
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      new_m[i] = m_[i];
#pragma unroll
      for (int w = 0; w < kGroupWarps; ++w) {
        new_m[i] = fmaxf(new_m[i], maxima[w * kRows + row_of(i)]);
      }
    }
  }

  __device__ __forceinline__ void rescale(const float (&new_m)[4]) {
    const bool changed = new_m[0] > m_[0] || new_m[1] > m_[1] || new_m[2] > m_[2] ||
                         new_m[3] > m_[3];
    if (!__any_sync(0xFFFFFFFFu, changed)) return;
    float factor[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      factor[i] = m_[i] == -INFINITY ? 0 : fast_exp2(m_[i] - new_m[i]);
      m_[i] = new_m[i];
      l_[i] *= factor[i];
    }
#pragma unroll
    for (int i = 0; i < L::kValueColumns; ++i) {
#pragma unroll
      for (int j = 0; j < 8; ++j) o_[i][j] *= factor[row_index(j)];
    }
  }

  /// Values of tokens past the end may be anything, and 0 * NaN is NaN. All warps of the group are
  /// done with the tile's scores.
  __device__ __forceinline__ void clear_values(int tokens) const {
    for (int n = tokens * 8 + thread_ % kGroupThreads; n < kTileTokens * 8; n += kGroupThreads) {
#pragma unroll
      for (int i = 0; i < L::kValueColumns; ++i) {
        store_shared(slot(place_.plus(i + 1)) + n * 16, make_uint4(0, 0, 0, 0));
      }
    }
  }

  __device__ __forceinline__ void skip_tile() const {
    for (int i = 0; i < L::kColumns; ++i) {
      wait_full(place_.plus(i));
      release(place_.plus(i));
    }
  }

  // The end of a part. The next slots of the ring are the block's: the first half takes the block's
  // partial, for the cluster to read; the second what the groups hand each other.

  /// Column `column` of the block's partial: 64 elements of 16 rows, float [row][element], where
  /// `swizzled` elements keep both the writers and the readers off each other's banks.
  __device__ __forceinline__ std::uint32_t partial_column(int column) const {
    return slot(place_.plus(column / 2)) + column % 2 * (L::kSlotBytes / 2);
  }
  static __device__ __forceinline__ int swizzled(int row, int element) {
    return row * 64 + (element ^ (row / 2 % 4 * 8));
  }

  __device__ __forceinline__ void finish_part() {
    // What follows is not to be computed ahead: it would take the products' registers.
    forget();
    share_m_and_l();
    for (int i = 0; i < L::kValueColumns; ++i) wait_full(place_.plus(i));
    named_barrier<kAll, kComputeThreads>();
    scale_to_block();
    add_groups();
    forget();
    if constexpr (kBlocks > 1) {
      named_barrier<kAll, kComputeThreads>();
      signal_cluster(L::kPartialsReady);
      barrier_wait_cluster(shared_ + L::kPartialsReady, cluster_parity_);
    } else {
      named_barrier<kAll, kComputeThreads>();
    }
    merge_blocks();
    fence_async_proxy();
    if constexpr (kBlocks > 1) {
      barrier_wait_cluster(shared_ + L::kPartialsRead, cluster_parity_);
      cluster_parity_ ^= 1;
    }
    if (group_ == 0) {
      for (int i = 0; i < L::kValueColumns; ++i) release(place_.plus(i));
    }
  }

  __device__ __forceinline__ void forget() {
    asm volatile("" : "+r"(thread_), "+r"(lane_), "+r"(block_), "+r"(shared_), "+r"(place_.slot));
  }

  __device__ __forceinline__ void share_m_and_l() {
#pragma unroll
    for (int distance = 4; distance < 32; distance *= 2) {
#pragma unroll
      for (int i = 0; i < 4; ++i) l_[i] += __shfl_xor_sync(0xFFFFFFFFu, l_[i], distance);
    }
    if (lane_ < 4) {
      float* sums = pointer<float>(L::kSums) + (group_ * kGroupWarps + warp_) * kRows;
#pragma unroll
      for (int i = 0; i < 4; ++i) sums[row_of(i)] = l_[i];
      if (warp_ == 0) {
#pragma unroll
        for (int i = 0; i < 4; ++i) pointer<float>(L::kGroupM)[group_ * kRows + row_of(i)] = m_[i];
      }
    }
  }

  /// Takes o to the larger m of the two groups; leaves the block's m and l.
  __device__ __forceinline__ void scale_to_block() {
    const float* group_m = pointer<const float>(L::kGroupM);
    float factor[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float m = fmaxf(m_[i], group_m[(1 - group_) * kRows + row_of(i)]);
      factor[i] = m_[i] == -INFINITY ? 0 : fast_exp2(m_[i] - m);
    }
#pragma unroll
    for (int i = 0; i < L::kValueColumns; ++i) {
#pragma unroll
      for (int j = 0; j < 8; ++j) o_[i][j] *= factor[row_index(j)];
    }
    if (thread_ < kRows) {
      const float* sums = pointer<const float>(L::kSums);
      const float m = fmaxf(group_m[thread_], group_m[kRows + thread_]);
      float l = 0;
#pragma unroll
      for (int g = 0; g < kGroups; ++g) {
        float sum = 0;
#pragma unroll
        for (int w = 0; w < kGroupWarps; ++w) sum += sums[(g * kGroupWarps + w) * kRows + thread_];
        const float of_group = group_m[g * kRows + thread_];
        l += of_group == -INFINITY ? 0 : sum * fast_exp2(of_group - m);
      }
      pointer<float2>(L::kStats)[thread_] = make_float2(m, l);
    }
  }

  /// Each group gets one half of the columns from the other, adds its own and leaves them as the
  /// block's partial.
  __device__ __forceinline__ void add_groups() {
    constexpr int kHalf = L::kValueColumns / 2;
    const auto handed = [&](int from_group, int i) {
      return slot(place_.plus(kHalf + from_group * (kHalf / 2) + i / 2)) +
             i % 2 * (L::kSlotBytes / 2) + thread_ % kGroupThreads * 16;
    };
    const auto hand_over = [&](const float (&o)[8], int i) {
      store_shared4(handed(group_, i), o[0], o[1], o[2], o[3]);
      store_shared4(handed(group_, i) + kGroupThreads * 16, o[4], o[5], o[6], o[7]);
    };
    const auto add_and_leave = [&](float (&o)[8], int column, int i) {
      const float4 a = load_shared4(handed(1 - group_, i));
      const float4 b = load_shared4(handed(1 - group_, i) + kGroupThreads * 16);
      const float sum[8] = {o[0] + a.x, o[1] + a.y, o[2] + a.z, o[3] + a.w,
                            o[4] + b.x, o[5] + b.y, o[6] + b.z, o[7] + b.w};
      const std::uint32_t to = partial_column(column);
#pragma unroll
      for (int j = 0; j < 8; ++j) {
        const int element = warp_ * 16 + lane_ / 4 + ((j >> 1) & 1) * 8;
        store_shared(to + swizzled(row_of(row_index(j)), element) * 4, sum[j]);
      }
    };
#pragma unroll
    for (int i = 0; i < kHalf; ++i) {
      if (group_ == 0) {
        hand_over(o_[kHalf + i], i);
      } else {
        hand_over(o_[i], i);
      }
    }
    named_barrier<kAll, kComputeThreads>();
#pragma unroll
    for (int i = 0; i < kHalf; ++i) {
      if (group_ == 0) {
        add_and_leave(o_[i], i, i);
      } else {
        add_and_leave(o_[kHalf + i], kHalf + i, i);
      }
    }
  }

  __device__ __forceinline__ void signal_cluster(int barrier) const {
    if (thread_ < kBlocks) {
      barrier_arrive_cluster(map_to_block(shared_ + barrier, static_cast<std::uint32_t>(thread_)));
    }
  }

  /// Merges this block's share of the columns over the blocks of the cluster, and writes it.
  __device__ __forceinline__ void merge_blocks() {
    constexpr int kElements = kDV / kBlocks;
    constexpr int kVectors = kElements / 4;
    constexpr int kPlaces = kRows * kVectors;
    constexpr int kSplit = kPlaces < kComputeThreads ? kComputeThreads / kPlaces : 1;
    constexpr int kEach = kPlaces > kComputeThreads ? kPlaces / kComputeThreads : 1;
    constexpr int kPartials = kBlocks / kSplit;
    constexpr int kAtOnce = kEach < 4 ? kEach : 4;
    const int split = thread_ % kSplit;

#pragma unroll 1
    for (int from = 0; from < kEach; from += kAtOnce) {
    float4 o[kAtOnce][kPartials];
    float2 stats[kAtOnce][kPartials];
#pragma unroll
    for (int e = 0; e < kAtOnce; ++e) {
      const int place = ((from + e) * kComputeThreads + thread_) / kSplit;
      const int row = place / kVectors;
      if (row >= part_->rows) break;
      const int element = block_ * kElements + place % kVectors * 4;
      const std::uint32_t at = partial_column(element / 64) + swizzled(row, element % 64) * 4;
      const std::uint32_t stats_at = shared_ + L::kStats + row * 8;
#pragma unroll
      for (int i = 0; i < kPartials; ++i) {
        const auto block = static_cast<std::uint32_t>((split * kPartials + i + block_) % kBlocks);
        o[e][i] = load_mapped4(map_to_block(at, block));
        stats[e][i] = load_mapped2(map_to_block(stats_at, block));
      }
    }
#pragma unroll
    for (int e = 0; e < kAtOnce; ++e) {
      const int place = ((from + e) * kComputeThreads + thread_) / kSplit;
      const int row = place / kVectors;
      if (kSplit == 1 && row >= part_->rows) break;
      float m = stats[e][0].x;
#pragma unroll
      for (int i = 1; i < kPartials; ++i) m = fmaxf(m, stats[e][i].x);
      if (row >= part_->rows) m = -INFINITY;
#pragma unroll
      for (int distance = 1; distance < kSplit; distance *= 2) {
        m = fmaxf(m, __shfl_xor_sync(0xFFFFFFFFu, m, distance));
      }
      float l = 0;
      float4 sum = make_float4(0, 0, 0, 0);
#pragma unroll
      for (int i = 0; i < kPartials; ++i) {
        const float weight = m == -INFINITY ? 0 : fast_exp2(stats[e][i].x - m);
        l += weight * stats[e][i].y;
        sum.x += weight * o[e][i].x;
        sum.y += weight * o[e][i].y;
        sum.z += weight * o[e][i].z;
        sum.w += weight * o[e][i].w;
      }
#pragma unroll
      for (int distance = 1; distance < kSplit; distance *= 2) {
        l += __shfl_xor_sync(0xFFFFFFFFu, l, distance);
        sum.x += __shfl_xor_sync(0xFFFFFFFFu, sum.x, distance);
        sum.y += __shfl_xor_sync(0xFFFFFFFFu, sum.y, distance);
        sum.z += __shfl_xor_sync(0xFFFFFFFFu, sum.z, distance);
        sum.w += __shfl_xor_sync(0xFFFFFFFFu, sum.w, distance);
      }
      if (split == 0 && row < part_->rows) {
        write(row, block_ * kElements + place % kVectors * 4, m, l, sum);
      }
    }
    }
    if (kBlocks > 1 || part_->merge >= 0) {
      if (part_->merge >= 0) __threadfence();
      named_barrier<kAll, kComputeThreads>();
      if constexpr (kBlocks > 1) signal_cluster(L::kPartialsRead);
      if (part_->merge >= 0 && thread_ == 0) atomicAdd(args_.counters + 2 * part_->merge, 1u);
    } else {
      named_barrier<kAll, kComputeThreads>();
    }
  }

  __device__ __forceinline__ void write(int row, int element, float m, float l, float4 o) const {
    if (part_->partial.offset >= 0) {
      float* partial = args_.partials + part_->partial.offset;
      const int padded_rows = (part_->partial.rows + 15) / 16 * 16;
      const int at = part_->partial.row_begin + row;
      __stcg(reinterpret_cast<float4*>(partial + 2 * padded_rows +
                                       static_cast<std::int64_t>(at) * kDV + element),
             o);
      if (element == 0) {
        __stcg(partial + at, m);
        __stcg(partial + padded_rows + at, l);
      }
      return;
    }
    const int item_row = part_->row_begin + row;
    const int token = item_row / part_->heads;
    const int head = item_row % part_->heads;
    const float inverse = l > 0 ? 1 / l : 0;
    o.x *= inverse;
    o.y *= inverse;
    o.z *= inverse;
    o.w *= inverse;
    const std::int64_t at = part_->out + token * args_.out_token_stride +
                            head * args_.out_head_stride + element;
    if (args_.out_type == OutType::kFp32) {
      *reinterpret_cast<float4*>(static_cast<float*>(args_.out) + at) = o;
    } else {
      uint2 packed;
      if (args_.out_type == OutType::kBf16) {
        packed = {pack<true>(o.x, o.y), pack<true>(o.z, o.w)};
      } else {
        packed = {pack<false>(o.x, o.y), pack<false>(o.z, o.w)};
      }
      *reinterpret_cast<uint2*>(static_cast<std::uint16_t*>(args_.out) + at) = packed;
    }
    if (element == 0) {
      constexpr float kLn2 = 0.693147180559945309f;
      args_.lse[part_->lse + token * args_.lse_token_stride + head * args_.lse_head_stride] =
          l > 0 ? (m + __log2f(l)) * kLn2 : INFINITY;
    }
  }

  template <class T>
  __device__ __forceinline__ T* pointer(int offset) const {
    extern __shared__ __align__(1024) char memory[];
    return reinterpret_cast<T*>(memory + offset);
  }
  __device__ __forceinline__ void group_barrier() const {
    named_barrier(1 + group_, kGroupThreads);
  }
  __device__ __forceinline__ std::uint32_t slot(Place place) const {
    return shared_ + place.slot * L::kSlotBytes;
  }
  __device__ __forceinline__ void wait_full(Place place) const {
    barrier_wait(shared_ + L::kFull + place.slot * 8, place.parity);
  }
  __device__ __forceinline__ void release(Place place) const {
    if (lane_ == 0) barrier_arrive(shared_ + L::kEmpty + place.slot * 8);
  }

  const DecodeArgs& args_;
  std::uint32_t shared_;
  int block_;
  int thread_;
  int group_;
  int warp_;
  int lane_;
  const Part* part_;
  Place place_;
  std::uint32_t cluster_parity_ = 0;
  int visible_[4];
  int all_see_ = 0;
  int token_end_ = 0;
  float m_[4];
  float l_[4];
  float o_[L::kValueColumns][8];
};

}  // namespace mla::kernels::cuda::m16
