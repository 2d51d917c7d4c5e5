#include <algorithm>

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include "kernels/cuda/merge.cuh"
#include "kernels/cuda/sm90/kernels.h"
#include "kernels/cuda/sm90/ptx.cuh"
#include "kernels/cuda/sm90/tensor_map.h"
#include "kernels/cuda/sm90/wgmma.cuh"

#ifndef GATE
#define GATE 1
#endif

// Fused MLA decode of 64 query rows per block on Hopper's tensor cores. A block is three
// warpgroups: one computes scores and softmax and holds most of the queries in registers, two have
// half of the value elements each, hold their sums in registers and keep the copy engine busy. So
// shared memory is free for three tiles of 64 keys, each both K and V:
//
//   scores    | Q K0^T | softmax | Q K1^T | softmax | Q K2^T | softmax | Q K3^T ...
//   values                                | P0 V0   ........ | P1 V1   ........ | ...
//
// The values of a tile are summed when the scores of the next one are there, so that the tensor
// cores have work during the softmax. docs/hopper.md tells why it is built like this.

namespace mla::kernels::cuda::sm90 {
namespace {

constexpr int kRows = 64;
constexpr int kTokens = 64;
constexpr int kGroup = 128;  // threads of a warpgroup
constexpr int kThreads = 3 * kGroup;
constexpr int kMergers = 2 * kGroup;                    // threads that merge
constexpr int kSlabBytes = kTokens * kBoxElements * 2;  // 64 tokens x 64 elements

// Registers of a thread, of the 168 that each of 384 begins with.
constexpr int kScoreRegisters = 176;
constexpr int kValueRegisters = 160;

enum NamedBarrier : int { kScores = 1, kValuesLeft, kValuesRight, kMerge };

/// `kSlabs` slabs of 64 elements hold a cache row. All but the last are values too, half of them
/// for either value group. The last one, the tail, is no value: it gives its place to the tile's
/// weights once the scores are computed.
constexpr int kValueStages = 3;
constexpr int kTailStages = 2;
constexpr int kQueryTail = 2;  // slabs of the queries for which there are no registers

template <int kSlabs>
struct __align__(1024) Shared {
  std::uint8_t values[kValueStages][kSlabs - 1][kSlabBytes];
  std::uint8_t tail[kTailStages][kSlabBytes];
  std::uint8_t q[kQueryTail][kSlabBytes];
  float scale[kValueStages][kRows];  // of earlier sums, when a tile moved the maximum
  float m[kValueStages][kRows];      // of the part, by the stage of its last tile
  float l[kValueStages][kRows];
  std::uint64_t values_full[kValueStages][kSlabs - 1];
  std::uint64_t tail_full[kTailStages];
  std::uint64_t summed[kValueStages][2];  // a half of the values has been summed
  std::uint64_t scored[kValueStages];     // the scores are computed
  std::uint64_t weighted[kValueStages];   // weights and scales are there
};

/// What a block has to do of a part.
struct Work {
  Part part;
  int rows;       // of this block, at most kRows
  int row_begin;  // of the part's
  int tiles;

  __device__ Work(const DecodeArgs& args, int index, int block_in_team) : part(args.parts[index]) {
    row_begin = block_in_team * kRows;
    rows = min(kRows, max(0, part.rows - row_begin));
    const int keys = part.token_end - part.token_begin;
    tiles = __shfl_sync(~0U, (keys + kTokens - 1) / kTokens, 0);
  }
  __device__ int tokens_of(int tile) const {
    return min(kTokens, part.token_end - part.token_begin - tile * kTokens);
  }
};

/// Where in a ring of stages a warp is. All walk through the same tiles.
template <int kStages>
struct Ring {
  int stage = 0;
  std::uint32_t parity = 0;

  __device__ void advance() {
    if (++stage == kStages) {
      stage = 0;
      parity ^= 1;
    }
  }
};

struct Place {
  Ring<kValueStages> values;
  Ring<kTailStages> tail;

  __device__ void advance() {
    values.advance();
    tail.advance();
  }
};

__device__ __forceinline__ void arrive_as_warp(std::uint64_t& barrier) {
  __syncwarp();
  if (threadIdx.x % 32 == 0) arrive(shared_address(&barrier));
}

// ---- Loading ----

/// One warp that copies some slabs of every tile of a team's parts, one after the other.
struct Loader {
  const DecodeArgs& args;
  const CUtensorMap& map;
  const int box_tokens;
  int next_part;
  const std::int32_t* table = nullptr;  // of the part at hand
  int kv_head = 0;
  int token = 0;  // of the next tile
  int token_end = 0;
  int page = 0;  // of `token`

  __device__ Loader(const DecodeArgs& a, const CUtensorMap& m, int box, int team)
      : args(a), map(m), box_tokens(box), next_part(team) {
    find_tile();
  }

  __device__ int page_of(int t) const { return table[t / static_cast<int>(args.page_block_size)]; }

  /// Looks up the page of the next tile, so that it is there when the tile is to be copied.
  __device__ void find_tile() {
    while (token >= token_end && next_part >= 0) {
      const Part& part = args.parts[next_part];
      next_part = part.next;
      table = args.block_tables + part.block_table;
      kv_head = part.kv_head;
      token = part.token_begin;
      token_end = part.token_end;
    }
    if (token < token_end) page = page_of(token);
  }

  /// Lane i copies slab first + i of the next tile, i < count, to to + i slabs, if there is one.
  __device__ void copy_next(int first, int count, std::uint8_t* to, std::uint64_t* full) {
    if (token >= token_end) return;
    const int lane = static_cast<int>(threadIdx.x % 32);
    if (lane < count) {
      const int boxes = (min(kTokens, token_end - token) + box_tokens - 1) / box_tokens;
      const int box_bytes = box_tokens * kBoxElements * 2;
      const std::uint32_t barrier = shared_address(full + lane);
      const std::uint32_t at = shared_address(to) + lane * kSlabBytes;
      arrive_and_expect(barrier, boxes * box_bytes);
      for (int box = 0; box < boxes; ++box) {
        const int t = token + box * box_tokens;
        copy_box(at + box * box_bytes, &map, barrier, (first + lane) * kBoxElements,
                 t % static_cast<int>(args.page_block_size), box == 0 ? page : page_of(t), kv_head);
      }
    }
    __syncwarp();
    token += kTokens;
    find_tile();
  }
};

// ---- Scores ----

/// The two rows, row and row + 8, that a thread has of a warpgroup's sums.
struct RowPair {
  float of[2];
};

template <bool kBf16>
__device__ __forceinline__ std::uint32_t pack(float low, float high) {
  std::uint32_t bits;
  if constexpr (kBf16) {
    const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
    memcpy(&bits, &pair, 4);
  } else {
    const __half2 pair = __floats2half2_rn(low, high);
    memcpy(&bits, &pair, 4);
  }
  return bits;
}

template <bool kBf16, int kSlabs>
struct Scorer {
  Shared<kSlabs>& shared;
  const DecodeArgs& args;
  const int thread = static_cast<int>(threadIdx.x) % kGroup;
  const int lane = thread % 32;
  const int row = thread / 32 * 16 + lane / 4;

  static constexpr int kHeld = kSlabs - kQueryTail;
  std::uint32_t q[kHeld][4][4];  // A operands of the products with the first slabs
  RowPair m{};
  RowPair l{};        // each thread a quarter of the columns
  int visible[2]{};   // ends of what the rows see, from the part's first token
  int all_visible{};  // what all rows of the block see

  __device__ Scorer(Shared<kSlabs>& s, const DecodeArgs& a) : shared(s), args(a) {}

  /// Row `r` of the block's queries; null past the last.
  __device__ const std::uint16_t* query(const Work& work, int r) const {
    if (r >= work.rows) return nullptr;
    const int at = work.part.row_begin + work.row_begin + r;
    return args.q + work.part.q + at / work.part.heads * args.q_token_stride +
           at % work.part.heads * args.q_head_stride;
  }

  __device__ void load_queries(const Work& work) {
    for (int i = thread; i < kRows * 8 * kQueryTail; i += kGroup) {
      const int slab = i / 8 % kQueryTail;
      const int r = i / 8 / kQueryTail;
      const int element = (kHeld + slab) * kBoxElements + i % 8 * 8;
      const std::uint16_t* const from = query(work, r);
      const bool is_there = from != nullptr && element < args.d_qk;
      copy_16(shared_address(shared.q[slab]) + r * 128 + (i % 8 ^ (r % 8)) * 16,
              is_there ? from + element : args.q, is_there ? 16 : 0);
    }
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const std::uint16_t* const from = query(work, row + 8 * r);
#pragma unroll
      for (int i = 0; i < kHeld * 8; ++i) {
        const auto* const pair =
            reinterpret_cast<const std::uint32_t*>(from + i * 8 + lane % 4 * 2);
        q[i / 8][i / 2 % 4][i % 2 * 2 + r] = from == nullptr ? 0 : __ldg(pair);
      }
    }
    wait_for_copies();
    fence_async_proxy();
    sync_threads(kScores, kGroup);
  }

  __device__ void begin(const Work& work) {
    const Part& part = work.part;
    const auto visible_end = [&](int r) {
      const int behind = args.causal ? part.query_len - 1 - r / part.heads : 0;
      return min(part.context_len - behind, part.token_end) - part.token_begin;
    };
    const int first = part.row_begin + work.row_begin;
    for (int i = 0; i < 2; ++i) {
      m.of[i] = -INFINITY;
      l.of[i] = 0;
      visible[i] = visible_end(first + min(row + 8 * i, work.rows - 1));
    }
    all_visible = visible_end(first);
  }

  __device__ void compute_scores(float (&s)[32], const Place& place) {
    const MatrixDescriptor k =
        describe(shared_address(shared.values[place.values.stage]), 16, 1024);
    const MatrixDescriptor tail = describe(shared_address(shared.tail[place.tail.stage]), 16, 1024);
    const MatrixDescriptor rest = describe(shared_address(shared.q), 16, 1024);
#pragma unroll
    for (int i = 0; i < kSlabs; ++i) {
      if (i < kSlabs - 1) {
        wait(shared_address(&shared.values_full[place.values.stage][i]), place.values.parity);
      } else {
        wait(shared_address(&shared.tail_full[place.tail.stage]), place.tail.parity);
      }
      begin_products();
#pragma unroll
      for (int step = 0; step < 4; ++step) {
        const MatrixDescriptor b =
            i < kSlabs - 1 ? moved(k, i * kSlabBytes + step * 32) : moved(tail, step * 32);
        if (i < kHeld) {
          multiply_rows<kBf16>(s, q[i][step], b, i + step > 0);
        } else {
          multiply_rows<kBf16>(s, moved(rest, (i - kHeld) * kSlabBytes + step * 32), b, true);
        }
      }
    }
    commit_products();
    wait_for_products<0>();
    pin(s);
  }

  /// Turns scores of tile `tile` into weights 2^(s - m), where m becomes the maximum with theirs.
  /// Returns what to scale earlier sums by.
  __device__ RowPair take_softmax(float (&s)[32], int tile) {
    if ((tile + 1) * kTokens > all_visible) {
#pragma unroll
      for (int i = 0; i < 32; ++i) {
        const int column = tile * kTokens + i / 4 * 8 + lane % 4 * 2 + i % 2;
        if (column >= visible[i / 2 % 2]) s[i] = -INFINITY;
      }
    }
    RowPair scale;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      float most = s[2 * r];
#pragma unroll
      for (int i = 2 * r; i < 32; i += 4) most = fmaxf(most, fmaxf(s[i], s[i + 1]));
      most = fmaxf(most, __shfl_xor_sync(~0U, most, 1));
      most = fmaxf(most, __shfl_xor_sync(~0U, most, 2));
      const float found = fmaxf(m.of[r], most * args.scale_log2);
      const float base = found == -INFINITY ? 0 : found;
      float sum = 0;
#pragma unroll
      for (int i = 2 * r; i < 32; i += 4) {
        s[i] = exp2_fast(fmaf(s[i], args.scale_log2, -base));
        s[i + 1] = exp2_fast(fmaf(s[i + 1], args.scale_log2, -base));
        sum += s[i] + s[i + 1];
      }
      scale.of[r] = exp2_fast(m.of[r] - base);
      m.of[r] = found;
      l.of[r] = l.of[r] * scale.of[r] + sum;
    }
    return scale;
  }

  /// Hands the weights to the value groups, in the layout of an A operand.
  __device__ void share_weights(const float (&s)[32], const RowPair& scale, const Place& place) {
    const int stage = place.values.stage;
    std::uint8_t* const mine = shared.tail[place.tail.stage] + row * 128 + lane % 4 * 4;
#pragma unroll
    for (int j = 0; j < 8; ++j) {
      auto* const piece = reinterpret_cast<std::uint32_t*>(mine + (j ^ (row % 8)) * 16);
      piece[0] = pack<kBf16>(s[4 * j], s[4 * j + 1]);
      piece[8 * 128 / 4] = pack<kBf16>(s[4 * j + 2], s[4 * j + 3]);
    }
    if (lane % 4 == 0) {
      shared.scale[stage][row] = scale.of[0];
      shared.scale[stage][row + 8] = scale.of[1];
    }
    fence_async_proxy();
  }

  /// Maxima and sums of the part, for the value groups.
  __device__ void share_sums(int stage) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      float sum = l.of[r];
      sum += __shfl_xor_sync(~0U, sum, 1);
      sum += __shfl_xor_sync(~0U, sum, 2);
      if (lane % 4 == 0) {
        // A NaN is no maximum: the sum alone tells.
        shared.m[stage][row + 8 * r] = m.of[r] == -INFINITY && sum != 0 ? NAN : m.of[r];
        shared.l[stage][row + 8 * r] = sum;
      }
    }
  }

  __device__ void run(int team, int block_in_team) {
    Place place;
    std::int64_t loaded_q = -1;
    int loaded_row = -1;
    wait_for_previous_grid();
    for (int index = team; index >= 0;) {
      const Work work(args, index, block_in_team);
      index = work.part.next;
      if (work.tiles == 0) continue;
      if (work.part.q != loaded_q || work.part.row_begin != loaded_row) load_queries(work);
      loaded_q = work.part.q;
      loaded_row = work.part.row_begin;
      begin(work);
      for (int tile = 0; tile < work.tiles; ++tile, place.advance()) {
        const int stage = place.values.stage;
        float s[32];
        compute_scores(s, place);
        arrive_as_warp(shared.scored[stage]);
        const RowPair scale = take_softmax(s, tile);
        share_weights(s, scale, place);
        if (tile == work.tiles - 1) share_sums(stage);
        arrive_as_warp(shared.weighted[stage]);
      }
    }
  }
};

// ---- Values ----

template <bool kBf16, int kSlabs, int half>
struct Summer {
  static constexpr int kHalf = (kSlabs - 1) / 2;  // slabs
  static constexpr int kOut = kHalf * 32;

  Shared<kSlabs>& shared;
  const DecodeArgs& args;
  const int thread = static_cast<int>(threadIdx.x) % kGroup;
  const int lane = thread % 32;
  const int row = thread / 32 * 16 + lane / 4;

  __device__ Summer(Shared<kSlabs>& s, const DecodeArgs& a) : shared(s), args(a) {}

  __device__ void wait_for_values(const Ring<kValueStages>& ring) {
#pragma unroll
    for (int i = half * kHalf; i < (half + 1) * kHalf; ++i) {
      wait(shared_address(&shared.values_full[ring.stage][i]), ring.parity);
    }
  }

  /// Zeroes the values of keys past the end, whatever the pages hold there: a weight of 0 does not
  /// help against NaN.
  __device__ void clear_values(int stage, int tokens) {
    for (int i = thread; i < (kTokens - tokens) * 8 * kHalf; i += kGroup) {
      const int slab = half * kHalf + i / 8 % kHalf;
      const int token = tokens + i / 8 / kHalf;
      auto* const at = shared.values[stage][slab] + token * 128 + i % 8 * 16;
      *reinterpret_cast<uint4*>(at) = uint4{0, 0, 0, 0};
    }
    fence_async_proxy();
    sync_threads(half == 0 ? kValuesLeft : kValuesRight, kGroup);
  }

  /// o <- o * scale + weights * values of the tile at `place`.
  __device__ void add_tile(float (&o)[kOut], const Place& place, int tokens, bool has_next) {
    const int stage = place.values.stage;
    wait(shared_address(&shared.weighted[stage]), place.values.parity);
    const float scale[2] = {shared.scale[stage][row], shared.scale[stage][row + 8]};
    if (__any_sync(~0U, scale[0] != 1 || scale[1] != 1)) {
#pragma unroll
      for (int i = 0; i < kOut; ++i) o[i] *= scale[i / 2 % 2];
    }
    wait_for_values(place.values);
    if (tokens < kTokens) clear_values(stage, tokens);
#if GATE
    if (has_next) {
      Ring<kValueStages> next = place.values;
      next.advance();
      wait(shared_address(&shared.scored[next.stage]), next.parity);
    }
#endif
    const MatrixDescriptor v =
        describe(shared_address(shared.values[stage][half * kHalf]), kSlabBytes, 1024);
    const MatrixDescriptor p = describe(shared_address(shared.tail[place.tail.stage]), 16, 1024);
    begin_products();
#pragma unroll
    for (int step = 0; step < 4; ++step) {
      multiply_values<kBf16>(o, moved(p, step * 32), moved(v, step * 16 * 128), true);
    }
    commit_products();
    wait_for_products<0>();
    pin(o);
  }

  /// Writes this half of the rows: of a partial, or of the results.
  __device__ void finish(const Work& work, float (&o)[kOut], const RowPair& m, const RowPair& l) {
    const auto results = results_of(args, work.part);
    const bool is_odd = lane % 2 == 1;
    const int first = half * kHalf * kBoxElements + lane % 4 / 2 * 4 + (is_odd ? 8 : 0);
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const int at = row + 8 * r;
      const bool is_there = at < work.rows;
      if (is_there && half == 0 && lane % 4 == 0) {
        results.store_row(work.row_begin + at, m.of[r], l.of[r]);
      }
#pragma unroll
      for (int j = 0; j < kOut / 4; j += 2) {
        // Neighbours swap pairs, so that each has four elements side by side.
        const int k = 4 * j + 2 * r;  // of column group j; those of the next one are 4 further
        const float give[2] = {is_odd ? o[k] : o[k + 4], is_odd ? o[k + 1] : o[k + 5]};
        const float got[2] = {__shfl_xor_sync(~0U, give[0], 1), __shfl_xor_sync(~0U, give[1], 1)};
        const float4 four = is_odd ? float4{got[0], got[1], o[k + 4], o[k + 5]}
                                   : float4{o[k], o[k + 1], got[0], got[1]};
        if (is_there) results.store(work.row_begin + at, first + 8 * j, four, m.of[r], l.of[r]);
      }
    }
  }

  /// The first warp copies the values of this half. The second one of the right half copies the
  /// tails, which both halves must have done with.
  __device__ void run(Loader loader, int team, int block_in_team) {
    const int warp = __shfl_sync(~0U, thread / 32, 0);
    const bool copies_values = warp == 0;
    const bool copies_tails = half == 1 && warp == 1;
    wait_for_previous_grid();
    if (copies_values) {
      for (int i = 0; i < kValueStages; ++i) copy_values(loader, i);
    } else if (copies_tails) {
      for (int i = 0; i < kTailStages; ++i) copy_tail(loader, i);
    }
    Place place;
    for (int index = team; index >= 0;) {
      const Work work(args, index, block_in_team);
      index = work.part.next;
      float o[kOut];
#pragma unroll
      for (float& x : o) x = 0;
      RowPair m{-INFINITY, -INFINITY};
      RowPair l{0, 0};
      for (int tile = 0; tile < work.tiles; ++tile, place.advance()) {
        const int stage = place.values.stage;
        add_tile(o, place, work.tokens_of(tile), tile + 1 < work.tiles);
        if (tile == work.tiles - 1) {
          for (int r = 0; r < 2; ++r) {
            m.of[r] = shared.m[stage][row + 8 * r];
            l.of[r] = shared.l[stage][row + 8 * r];
          }
        }
        arrive_as_warp(shared.summed[stage][half]);
        if (copies_values) {
          wait(shared_address(&shared.summed[stage][half]), place.values.parity);
          copy_values(loader, stage);
        } else if (copies_tails) {
          for (std::uint64_t& barrier : shared.summed[stage]) {
            wait(shared_address(&barrier), place.values.parity);
          }
          copy_tail(loader, place.tail.stage);
        }
      }
      if (work.rows > 0) finish(work, o, m, l);
      if (work.part.merge >= 0) arrive_at_merge(args, work.part.merge, merger(), MergeBarrier{});
    }
  }

  __device__ void copy_values(Loader& loader, int stage) {
    loader.copy_next(half * kHalf, kHalf, shared.values[stage][half * kHalf],
                     &shared.values_full[stage][half * kHalf]);
  }
  __device__ void copy_tail(Loader& loader, int stage) {
    loader.copy_next(kSlabs - 1, 1, shared.tail[stage], &shared.tail_full[stage]);
  }

  struct MergeBarrier {
    __device__ void operator()() const { sync_threads(kMerge, kMergers); }
  };
  __device__ int merger() const {
    return half * kGroup + thread;
  }

  __device__ void run_merges(int team, int block_in_team, int blocks_per_team) {
    for (int i = args.share_offsets[team]; i < args.share_offsets[team + 1]; ++i) {
      const MergeShare share = args.shares[i];
      const Merge merge = args.merges[share.merge];
      wait_for_parts(args, share.merge, merge.count * blocks_per_team, merger(), MergeBarrier{});
      merge_slice(args, merge, share.first_block + block_in_team, merger(), kMergers, shared.values,
                  MergeBarrier{});
      finish_merge(args, share.merge, merge.blocks, merger(), MergeBarrier{});
    }
  }
};

// ---- All together ----

template <bool kBf16, int kSlabs>
__global__ void __launch_bounds__(kThreads, 1)
    decode_m64_kernel(const __grid_constant__ DecodeArgs args,
                      const __grid_constant__ CUtensorMap map, int box_tokens,
                      int blocks_per_team) {
  extern __shared__ __align__(1024) std::uint8_t raw[];
  auto& shared = *reinterpret_cast<Shared<kSlabs>*>(raw);
  const int team = static_cast<int>(blockIdx.x) / blocks_per_team;
  const int block_in_team = static_cast<int>(blockIdx.x) % blocks_per_team;
  let_next_grid_start();
  if (threadIdx.x == 0) {
    prefetch_map(&map);
    for (int stage = 0; stage < kValueStages; ++stage) {
      for (auto& barrier : shared.values_full[stage]) init_barrier(shared_address(&barrier), 1);
      for (auto& barrier : shared.summed[stage]) init_barrier(shared_address(&barrier), 4);
      init_barrier(shared_address(&shared.scored[stage]), 4);
      init_barrier(shared_address(&shared.weighted[stage]), 4);
    }
    for (auto& barrier : shared.tail_full) init_barrier(shared_address(&barrier), 1);
    fence_barrier_init();
  }
  __syncthreads();

  // The same for all threads of a warp, which the compiler must know.
  const int group = __shfl_sync(~0U, static_cast<int>(threadIdx.x) / kGroup, 0);
  if (group == 0) {
    take_registers<kScoreRegisters>();
    Scorer<kBf16, kSlabs> scorer(shared, args);
    scorer.run(team, block_in_team);
  } else {
    give_registers<kValueRegisters>();
    const Loader loader(args, map, box_tokens, team);
    if (group == 1) {
      Summer<kBf16, kSlabs, 0> summer(shared, args);
      summer.run(loader, team, block_in_team);
      summer.run_merges(team, block_in_team, blocks_per_team);
    } else {
      Summer<kBf16, kSlabs, 1> summer(shared, args);
      summer.run(loader, team, block_in_team);
      summer.run_merges(team, block_in_team, blocks_per_team);
    }
  }
}

// ---- Launching ----

using Kernel = void (*)(DecodeArgs, CUtensorMap, int, int);

struct Choice {
  Kernel kernel = nullptr;
  int shared_bytes = 0;
};

template <int kSlabs>
Choice choose(bool bf16) {
  return {bf16 ? decode_m64_kernel<true, kSlabs> : decode_m64_kernel<false, kSlabs>,
          static_cast<int>(sizeof(Shared<kSlabs>))};
}

Choice choose(const DecodeArgs& args) {
  const auto takes = [&args](int d_qk, int d_v) {
    return args.d_v == d_v && args.d_qk > d_v && args.d_qk <= d_qk;
  };
  if (takes(576, 512)) return choose<9>(args.bf16);
  if (takes(320, 256)) return choose<5>(args.bf16);
  return {};
}

class DecodeM64 final : public DeviceKernel {
 public:
  std::string_view name() const override { return "sm90-m64"; }

  std::string why_unsupported(const DecodeArgs& args) const override {
    if (choose(args).kernel == nullptr) {
      return "it takes rows of 513 to 576 elements with 512 values, and 257 to 320 with 256";
    }
    if (args.d_qk % 8 != 0 || args.q_token_stride % 8 != 0 || args.q_head_stride % 8 != 0) {
      return "rows and strides of queries must be multiples of 16 bytes";
    }
    if (!(args.scale_log2 > 0)) return "the softmax scale must be positive";
    return why_not_mapped(args);
  }

  KernelGeometry geometry(std::span<const DeviceItem> items, const PlanSizes&,
                          const DeviceInfo& device) const override {
    std::int64_t most_rows = 0;
    for (const DeviceItem& item : items) most_rows = std::max(most_rows, item.rows.size());
    // Blocks of a team read the same keys at the same time, so memory is read once.
    const int blocks = most_rows > kRows ? 2 : 1;
    return {.teams = std::max(1, device.multiprocessors / blocks),
            .blocks_per_team = blocks,
            .rows_per_part = blocks * kRows,
            .tile_tokens = kTokens};
  }

  ErrorCode launch(const DecodeArgs& args, const KernelGeometry& geometry,
                   StreamHandle stream) const override {
    const Choice choice = choose(args);
    const int tokens = box_tokens(args);
    CUtensorMap map;
    if (const ErrorCode error = map_cache(args, tokens, map); error != cudaSuccess) return error;
    if (const cudaError_t error =
            cudaFuncSetAttribute(reinterpret_cast<const void*>(choice.kernel),
                                 cudaFuncAttributeMaxDynamicSharedMemorySize, choice.shared_bytes);
        error != cudaSuccess) {
      return error;
    }
    cudaLaunchAttribute attributes[2];
    attributes[0].id = cudaLaunchAttributeCooperative;  // blocks wait for one another's parts
    attributes[0].val.cooperative = 1;
    attributes[1].id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attributes[1].val.programmaticStreamSerializationAllowed = 1;
    cudaLaunchConfig_t config{};
    config.gridDim = static_cast<unsigned>(geometry.teams * geometry.blocks_per_team);
    config.blockDim = kThreads;
    config.dynamicSmemBytes = static_cast<std::size_t>(choice.shared_bytes);
    config.stream = stream;
    config.attrs = attributes;
    config.numAttrs = 2;
    return cudaLaunchKernelEx(&config, choice.kernel, args, map, tokens, geometry.blocks_per_team);
  }
};

}  // namespace

const DeviceKernel& decode_m64() {
  static const DecodeM64 kernel;
  return kernel;
}

}  // namespace mla::kernels::cuda::sm90
