#include <algorithm>

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include "kernels/cuda/merge.cuh"
#include "kernels/cuda/sm90/kernels.h"
#include "kernels/cuda/sm90/ptx.cuh"
#include "kernels/cuda/sm90/tensor_map.h"
#include "kernels/cuda/sm90/wgmma.cuh"

// Fused MLA decode of 64 query rows per block on Hopper's tensor cores. Two warpgroups compute,
// one keeps the copy engine busy; two tiles of 64 keys lie in shared memory, x (the even ones) and
// y. "left" computes the scores of x and has the first half of the value elements, "right" those of
// y and the second half, so that while one takes the softmax of its tile, the tensor cores work
// for the other:
//
//   left    | Q Kx^T |softmax x| x: P V left  |             | y: P V left  | Q Kx^T (next) ...
//   right   |             Q Ky^T             | x: P V right | softmax y | y: P V right | ...
//
// docs/hopper.md has the whole schedule. The order in which a row's tiles are summed is that of
// their keys, in both halves.

namespace mla::kernels::cuda::sm90 {
namespace {

constexpr int kRows = 64;
constexpr int kTokens = 64;
constexpr int kGroup = 128;  // threads of a warpgroup
constexpr int kConsumers = 2 * kGroup;
constexpr int kThreads = 3 * kGroup;
constexpr int kMostBlocks = 2;                         // of a team, for 128 rows
constexpr int kBoxBytes = kTokens * kBoxElements * 2;  // a slab: 64 tokens x 64 elements

enum NamedBarrier : int { kAll = 1, kXReady, kYReady, kLeft, kRight, kTurn };

/// `kSlabs` slabs of 64 elements hold a cache row; each half of its values is `kHalf` slabs, so the
/// last slab is no value. That of y keeps the weights of y once its scores are computed.
template <int kSlabs>
struct __align__(1024) Shared {
  std::uint8_t q[kSlabs][kBoxBytes];
  std::uint8_t kv[2][kSlabs][kBoxBytes];
  std::uint8_t weights_x[kBoxBytes];
  float m[2][kRows];
  float l[2][kRows];
  std::uint64_t full[2][kSlabs];
  std::uint64_t empty[2][2];  // [tile][half]
};

/// What a block has to do of a part.
struct Work {
  Part part;
  int rows;       // of this block, at most kRows
  int row_begin;  // of the request's rows
  int tiles;

  __device__ Work(const DecodeArgs& args, int index, int block_in_team) : part(args.parts[index]) {
    const int first = block_in_team * kRows;
    rows = min(kRows, max(0, part.rows - first));
    row_begin = part.row_begin + first;
    tiles = part.rows > 0 ? (part.token_end - part.token_begin + kTokens - 1) / kTokens : 0;
  }
  __device__ int tokens_of(int tile) const {
    return min(kTokens, part.token_end - part.token_begin - tile * kTokens);
  }
};

// ---- Loading ----

/// One warp fills one half of the tiles: [0, kHalf) or the rest; the slab without values goes with
/// the half that is read last: the right one of x, the left one of y. The blocks of a team share
/// the copying: each brings every kTeam-th box, to all of them.
template <int kSlabs, int kHalf, int kTeam>
__device__ void load_half(const DecodeArgs& args, const CUtensorMap& map, int box_tokens,
                          Shared<kSlabs>& shared, int team, int block_in_team, int half) {
  const int lane = static_cast<int>(threadIdx.x % 32);
  const int page_size = static_cast<int>(args.page_block_size);
  const int box_bytes = box_tokens * kBoxElements * 2;
  std::uint32_t uses[2] = {0, 0};
  bool waited = false;
  for (int index = team; index >= 0;) {
    const Work work(args, index, block_in_team);
    const std::int32_t* const table = args.block_tables + work.part.block_table;
    const auto page_of = [&](int tile, int box) {
      const int token = work.part.token_begin + tile * kTokens + box * box_tokens;
      return token < work.part.token_end ? table[token / page_size] : 0;
    };
    int next_page = page_of(0, block_in_team);
    if (!waited) wait_for_previous_grid();
    waited = true;
    for (int tile = 0; tile < work.tiles; ++tile) {
      const int buffer = tile % 2;
      const int first_token = work.part.token_begin + tile * kTokens;
      const int boxes = (work.tokens_of(tile) + box_tokens - 1) / box_tokens;
      const int first_page = next_page;
      next_page = page_of(tile + 1, block_in_team);
      wait(shared_address(&shared.empty[buffer][half]), (uses[buffer] & 1) ^ 1);
      ++uses[buffer];
      // The left half of x and the right one of y have no further slab.
      const int slabs = kHalf + (half == buffer ? 0 : kSlabs - 2 * kHalf);
      static_assert(kSlabs - 2 * kHalf == 1);
      if (lane < slabs) {
        const int slab = half == 0 ? (lane < kHalf ? lane : kSlabs - 1) : kHalf + lane;
        const std::uint32_t barrier = shared_address(&shared.full[buffer][slab]);
        const std::uint32_t to = shared_address(shared.kv[buffer][slab]);
        arrive_and_expect(barrier, boxes * box_bytes);
        for (int box = block_in_team; box < boxes; box += kTeam) {
          const int slot = (first_token + box * box_tokens) % page_size;
          const int page = box == block_in_team ? first_page : page_of(tile, box);
          if constexpr (kTeam == 1) {
            copy_box(to + box * box_bytes, &map, barrier, slab * kBoxElements, slot, page,
                     work.part.kv_head);
          } else {
            copy_box_to_blocks(to + box * box_bytes, &map, barrier, (1 << kTeam) - 1,
                               slab * kBoxElements, slot, page, work.part.kv_head);
          }
        }
      }
      __syncwarp();
    }
    index = work.part.next;
  }
}

/// Query rows to shared memory, by all consumers; zeros past the last row and past d_qk.
template <int kSlabs>
__device__ void load_queries(const DecodeArgs& args, const Work& work, Shared<kSlabs>& shared) {
  constexpr int kPieces = kSlabs * 8;  // of 16 bytes, to a row
  for (int i = static_cast<int>(threadIdx.x); i < kRows * kPieces; i += kConsumers) {
    const int row = i / kPieces;
    const int piece = i % kPieces;
    const bool is_there = row < work.rows && piece * 8 < args.d_qk;
    const int r = work.row_begin + row;
    const std::uint16_t* from = args.q;
    if (is_there) {
      from += work.part.q + r / work.part.heads * args.q_token_stride +
              r % work.part.heads * args.q_head_stride + piece * 8;
    }
    copy_16(shared_address(shared.q[piece / 8]) + row * 128 + ((piece % 8) ^ (row % 8)) * 16, from,
            is_there ? 16 : 0);
  }
  wait_for_copies();
  fence_async_proxy();
  sync_threads(kAll, kConsumers);
}

// ---- Computing ----

/// The two rows of a thread's sums.
struct RowPair {
  float of[2];
};

/// What one warpgroup keeps of a part.
template <bool kBf16, int kSlabs, int kHalf, int kTeam, int half>
struct Side {
  static constexpr int kOut = kHalf * 32;

  Shared<kSlabs>& shared;
  const float scale_log2;
  const int thread = static_cast<int>(threadIdx.x) % kGroup;
  const int lane = thread % 32;
  const int row = thread / 32 * 16 + lane / 4;  // the other is row + 8

  RowPair m{};        // running maxima
  RowPair l{};        // sums of this side's weights, each thread a quarter of the columns
  int visible[2]{};   // ends of what the rows see, from the part's first token
  int all_visible{};  // what all rows of the block see
  std::uint32_t uses[2]{};

  __device__ Side(Shared<kSlabs>& s, float scale) : shared(s), scale_log2(scale) {}

  __device__ std::uint32_t slab(int buffer, int i) const {
    return shared_address(shared.kv[buffer][i]);
  }
  __device__ void wait_full(int buffer, int i) const {
    wait(shared_address(&shared.full[buffer][i]), uses[buffer] & 1);
  }
  __device__ void release(int buffer) {
    const std::uint32_t barrier = shared_address(&shared.empty[buffer][half]);
    if constexpr (kTeam == 1) {
      if (lane == 0) arrive(barrier);
    } else {
      if (lane < kTeam) arrive_at_block(barrier, lane);
    }
  }

  __device__ void begin(const DecodeArgs& args, const Work& work) {
    const Part& part = work.part;
    const auto visible_end = [&](int r) {
      const int end =
          args.causal ? part.context_len - (part.query_len - 1 - r / part.heads) : part.context_len;
      return min(end, part.token_end) - part.token_begin;
    };
    const int last = work.row_begin + work.rows - 1;
    for (int i = 0; i < 2; ++i) {
      m.of[i] = -INFINITY;
      l.of[i] = 0;
      visible[i] = visible_end(min(work.row_begin + row + 8 * i, last));
    }
    all_visible = visible_end(work.row_begin);
  }

  /// Issues the scores of the tile in `buffer`.
  __device__ void issue_scores(float (&s)[32], int buffer) {
    const MatrixDescriptor q = describe(shared_address(shared.q), 16, 1024);
    const MatrixDescriptor k = describe(slab(buffer, 0), 16, 1024);
#pragma unroll
    for (int i = 0; i < kSlabs; ++i) {
      wait_full(buffer, i);
      begin_products();
#pragma unroll
      for (int step = 0; step < 4; ++step) {
        const int bytes = i * kBoxBytes + step * 32;
        multiply_rows<kBf16>(s, moved(q, bytes), moved(k, bytes), i + step > 0);
      }
    }
    commit_products();
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
      const float found = fmaxf(m.of[r], most * scale_log2);
      const float base = found == -INFINITY ? 0 : found;
      float sum = 0;
#pragma unroll
      for (int i = 2 * r; i < 32; i += 4) {
        s[i] = exp2_fast(fmaf(s[i], scale_log2, -base));
        s[i + 1] = exp2_fast(fmaf(s[i + 1], scale_log2, -base));
        sum += s[i] + s[i + 1];
      }
      scale.of[r] = exp2_fast(m.of[r] - base);
      m.of[r] = found;
      l.of[r] = l.of[r] * scale.of[r] + sum;
    }
    return scale;
  }

  static __device__ std::uint32_t pack(float low, float high) {
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

  /// Weights as the A operand of four products, and in shared memory for the other side.
  __device__ void share_weights(const float (&s)[32], std::uint32_t (&a)[4][4], std::uint8_t* to) {
    std::uint8_t* const mine = to + row * 128 + lane % 4 * 4;
#pragma unroll
    for (int j = 0; j < 8; ++j) {
      a[j / 2][j % 2 * 2] = pack(s[4 * j], s[4 * j + 1]);
      a[j / 2][j % 2 * 2 + 1] = pack(s[4 * j + 2], s[4 * j + 3]);
      std::uint8_t* const piece = mine + (j ^ (row % 8)) * 16;
      *reinterpret_cast<std::uint32_t*>(piece) = a[j / 2][j % 2 * 2];
      *reinterpret_cast<std::uint32_t*>(piece + 8 * 128) = a[j / 2][j % 2 * 2 + 1];
    }
    if (lane % 4 == 0) {
      shared.m[half][row] = m.of[0];
      shared.m[half][row + 8] = m.of[1];
    }
    fence_async_proxy();
  }

  /// Takes over the maxima that the other side found. Returns what to scale earlier sums by.
  __device__ RowPair follow() {
    RowPair scale;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const float found = shared.m[1 - half][row + 8 * r];
      scale.of[r] = exp2_fast(m.of[r] - (found == -INFINITY ? 0 : found));
      m.of[r] = found;
      l.of[r] *= scale.of[r];
    }
    return scale;
  }

  static __device__ void rescale_always(float (&o)[kOut], const RowPair& scale) {
#pragma unroll
    for (int i = 0; i < kOut; ++i) o[i] *= scale.of[i / 2 % 2];
  }

  /// Leaves out factors of 1, which change no bit. Not while products are under way.
  static __device__ void rescale(float (&o)[kOut], const RowPair& scale) {
    if (__any_sync(~0U, scale.of[0] != 1 || scale.of[1] != 1)) rescale_always(o, scale);
  }

  /// Zeroes the values of keys past the end, whatever the pages hold there: a weight of 0 does not
  /// help against NaN.
  __device__ void clear_values(int buffer, int tokens) {
    if (tokens == kTokens) return;
#pragma unroll
    for (int i = half * kHalf; i < (half + 1) * kHalf; ++i) wait_full(buffer, i);
    for (int i = thread; i < (kTokens - tokens) * 8 * kHalf; i += kGroup) {
      const int piece = i % 8;
      const int token = tokens + i / 8 / kHalf;
      auto* const at = shared.kv[buffer][half * kHalf + i / 8 % kHalf] + token * 128 + piece * 16;
      *reinterpret_cast<uint4*>(at) = uint4{0, 0, 0, 0};
    }
    fence_async_proxy();
    sync_threads(half == 0 ? kLeft : kRight, kGroup);
  }

  __device__ MatrixDescriptor values(int buffer) const {
    return describe(slab(buffer, half * kHalf), kBoxBytes, 1024);
  }

  /// Issues o += weights of this side * values in `buffer`.
  __device__ void issue_values(float (&o)[kOut], const std::uint32_t (&a)[4][4], int buffer) {
    const MatrixDescriptor v = values(buffer);
    begin_products();
#pragma unroll
    for (int step = 0; step < 4; ++step) {
      multiply_values<kBf16>(o, a[step], moved(v, step * 16 * 128), true);
    }
    commit_products();
  }

  /// The same with the other side's weights, at `weights` in shared memory.
  __device__ void issue_values(float (&o)[kOut], const std::uint8_t* weights, int buffer) {
    const MatrixDescriptor v = values(buffer);
    const MatrixDescriptor a = describe(shared_address(weights), 16, 1024);
#pragma unroll
    for (int i = half * kHalf; i < (half + 1) * kHalf; ++i) wait_full(buffer, i);
    begin_products();
#pragma unroll
    for (int step = 0; step < 4; ++step) {
      multiply_values<kBf16>(o, moved(a, step * 32), moved(v, step * 16 * 128), true);
    }
    commit_products();
  }

  /// Waits for all products and gives up this side's half of the tile in `buffer`.
  __device__ void finish_values(float (&o)[kOut], int buffer) {
    wait_for_products<0>();
    pin(o);
    release(buffer);
  }

  __device__ std::uint8_t* weights_y() {
    return shared.kv[1][kSlabs - 1];
  }

  /// o += weights of x * values of x, from the scores of x.
  __device__ void take_x(const Work& work, int tile, float (&s)[32], float (&o)[kOut]) {
    std::uint32_t a[4][4];
    pin(s);
#ifdef ORDER
    if (tile + 1 < work.tiles && ORDER == 1) arrive_threads(kTurn, kConsumers);
#endif
    const RowPair scale = take_softmax(s, tile);
    share_weights(s, a, shared.weights_x);
    arrive_threads(kXReady, kConsumers);
    rescale(o, scale);
    clear_values(0, work.tokens_of(tile));
    issue_values(o, a, 0);
    ++uses[0];
    finish_values(o, 0);
  }

  /// Issues o += weights of y * values of y with what the other side found.
  __device__ void follow_y(const Work& work, int tile, float (&o)[kOut]) {
    sync_threads(kYReady, kConsumers);
    rescale(o, follow());
    clear_values(1, work.tokens_of(tile));
    issue_values(o, weights_y(), 1);
    ++uses[1];
  }

  __device__ void run_left(const Work& work, float (&o)[kOut]) {
    float s[32];
    issue_scores(s, 0);
#ifdef ORDER
    if (1 < work.tiles && ORDER == 2) arrive_threads(kTurn, kConsumers);
#endif
    wait_for_products<0>();
    int tile = 0;
    for (; tile + 2 < work.tiles; tile += 2) {
      take_x(work, tile, s, o);
      follow_y(work, tile + 1, o);
#ifdef EARLY
      finish_values(o, 1);
      issue_scores(s, 0);
#ifdef ORDER
      if (tile + 3 < work.tiles && ORDER == 2) arrive_threads(kTurn, kConsumers);
#endif
#else
      issue_scores(s, 0);
      wait_for_products<1>();
      pin(o);
      release(1);
#endif
      wait_for_products<0>();
    }
    take_x(work, tile, s, o);
    if (tile + 1 < work.tiles) {
      follow_y(work, tile + 1, o);
      finish_values(o, 1);
    }
  }

  __device__ void run_right(const Work& work, float (&o)[kOut]) {
    int tile = 0;
    for (; tile + 1 < work.tiles; tile += 2) {
      float s[32];
      std::uint32_t a[4][4];
#ifdef ORDER
      sync_threads(kTurn, kConsumers);
#endif
      issue_scores(s, 1);
      sync_threads(kXReady, kConsumers);
      rescale(o, follow());
      issue_values(o, shared.weights_x, 0);
      ++uses[0];
      wait_for_products<1>();
      pin(s);
      const RowPair scale = take_softmax(s, tile + 1);
      share_weights(s, a, weights_y());
      arrive_threads(kYReady, kConsumers);
      finish_values(o, 0);
      rescale(o, scale);
      clear_values(1, work.tokens_of(tile + 1));
      issue_values(o, a, 1);
      ++uses[1];
      finish_values(o, 1);
    }
    if (tile < work.tiles) {
      sync_threads(kXReady, kConsumers);
      rescale(o, follow());
      clear_values(0, work.tokens_of(tile));
      issue_values(o, shared.weights_x, 0);
      ++uses[0];
      finish_values(o, 0);
    }
  }

  /// Writes this side's half of the rows: a partial, or their results.
  __device__ void finish(const DecodeArgs& args, const Work& work, float (&o)[kOut]) {
    sync_threads(kAll, kConsumers);  // the sums of the part before have been read
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      float sum = l.of[r];
      sum += __shfl_xor_sync(~0U, sum, 1);
      sum += __shfl_xor_sync(~0U, sum, 2);
      if (lane % 4 == 0) shared.l[half][row + 8 * r] = sum;
    }
    sync_threads(kAll, kConsumers);
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const int at = row + 8 * r;
      if (at >= work.rows) continue;
      const float sum = shared.l[0][at] + shared.l[1][at];
      const bool is_nan = m.of[r] == -INFINITY && sum != 0;
      const float maximum = is_nan ? NAN : m.of[r];
      const int first = half * kHalf * kBoxElements + lane % 4 * 2;
      const bool leads = half == 0 && lane % 4 == 0;
      if (work.part.partial.offset >= 0) {
        const PartialPlace& place = work.part.partial;
        const int padded = (place.rows + 15) / 16 * 16;
        const std::int64_t in_partial = place.row_begin + work.row_begin - work.part.row_begin + at;
        float* const base = args.partials + place.offset;
        if (leads) {
          __stcg(base + in_partial, maximum);
          __stcg(base + padded + in_partial, sum);
        }
        float* const to = base + 2 * padded + in_partial * args.d_v + first;
#pragma unroll
        for (int j = 0; j < kHalf * 8; ++j) {
          __stcg(reinterpret_cast<float2*>(to + 8 * j),
                 float2{o[4 * j + 2 * r], o[4 * j + 2 * r + 1]});
        }
      } else {
        const FinalRow final_row(args, work.part, work.row_begin + at, maximum, sum);
        if (leads) final_row.store_lse();
#pragma unroll
        for (int j = 0; j < kHalf * 8; ++j) {
          final_row.store(first + 8 * j, o[4 * j + 2 * r], o[4 * j + 2 * r + 1]);
        }
      }
    }
  }
};

template <bool kBf16, int kSlabs, int kHalf, int kTeam, int half>
__device__ void compute(const DecodeArgs& args, Shared<kSlabs>& shared, int team,
                        int block_in_team) {
  using Mine = Side<kBf16, kSlabs, kHalf, kTeam, half>;
  Mine side(shared, args.scale_log2);
  std::int64_t loaded_q = -1;
  int loaded_row = -1;
  wait_for_previous_grid();
  for (int index = team; index >= 0;) {
    const Work work(args, index, block_in_team);
    const Part& part = work.part;
    if (part.rows > 0) {  // of the team: blocks without rows of their own still pass tiles on
      if (part.q != loaded_q || work.row_begin != loaded_row) load_queries(args, work, shared);
      loaded_q = part.q;
      loaded_row = work.row_begin;
      side.begin(args, work);
      float o[Mine::kOut];
#pragma unroll
      for (float& x : o) x = 0;
      if (work.tiles > 0) {
        if constexpr (half == 0) {
          side.run_left(work, o);
        } else {
          side.run_right(work, o);
        }
      }
      side.finish(args, work, o);
    }
    if (part.merge >= 0) {
      __threadfence();
      sync_threads(kAll, kConsumers);
      if (threadIdx.x == 0) atomicAdd(args.counters + 2 * part.merge, 1U);
    }
    index = part.next;
  }
}

struct ConsumerSync {
  __device__ void operator()() const { sync_threads(kAll, kConsumers); }
};

template <bool kBf16, int kSlabs, int kHalf, int kTeam>
__global__ void __launch_bounds__(kThreads, 1)
    decode_m64_kernel(const __grid_constant__ DecodeArgs args,
                      const __grid_constant__ CUtensorMap map, int box_tokens) {
  extern __shared__ std::uint8_t raw[];
  const std::uint32_t misaligned = shared_address(raw) % 1024;
  auto& shared =
      *reinterpret_cast<Shared<kSlabs>*>(raw + (misaligned == 0 ? 0 : 1024 - misaligned));
  const int team = static_cast<int>(blockIdx.x) / kTeam;
  const int block_in_team = static_cast<int>(blockIdx.x) % kTeam;
  let_next_grid_start();
  if (threadIdx.x == 0) {
    prefetch_map(&map);
    for (int buffer = 0; buffer < 2; ++buffer) {
      for (int i = 0; i < kSlabs; ++i) init_barrier(shared_address(&shared.full[buffer][i]), 1);
      for (int h = 0; h < 2; ++h) init_barrier(shared_address(&shared.empty[buffer][h]), 4 * kTeam);
    }
    fence_barrier_init();
  }
  if constexpr (kTeam == 1) {
    __syncthreads();
  } else {
    sync_cluster();
  }

  // The same for all threads of a warp, which the compiler must know.
  const int group = __shfl_sync(~0U, static_cast<int>(threadIdx.x) / kGroup, 0);
  if (group == 2) {
    give_registers<24>();
    const int half = __shfl_sync(~0U, static_cast<int>(threadIdx.x) / 32 % 4, 0);
    if (half < 2) {
      load_half<kSlabs, kHalf, kTeam>(args, map, box_tokens, shared, team, block_in_team, half);
    }
  } else {
    take_registers<240>();
    if (group == 0) {
      compute<kBf16, kSlabs, kHalf, kTeam, 0>(args, shared, team, block_in_team);
    } else {
      compute<kBf16, kSlabs, kHalf, kTeam, 1>(args, shared, team, block_in_team);
    }
    run_merges(args, team, block_in_team, kTeam, static_cast<int>(threadIdx.x), kConsumers,
               shared.kv, ConsumerSync{});
  }
  if constexpr (kTeam > 1) sync_cluster();  // nobody leaves while others arrive at its barriers
}

// ---- Launching ----

using Kernel = void (*)(DecodeArgs, CUtensorMap, int);

struct Choice {
  Kernel kernel = nullptr;
  int shared_bytes = 0;
};

template <int kSlabs, int kHalf, int kTeam>
Kernel choose_kernel(bool bf16) {
  return bf16 ? decode_m64_kernel<true, kSlabs, kHalf, kTeam>
              : decode_m64_kernel<false, kSlabs, kHalf, kTeam>;
}

template <int kSlabs, int kHalf>
Choice choose(bool bf16, int blocks_per_team) {
  return {blocks_per_team == 1 ? choose_kernel<kSlabs, kHalf, 1>(bf16)
                               : choose_kernel<kSlabs, kHalf, kMostBlocks>(bf16),
          static_cast<int>(sizeof(Shared<kSlabs>)) + 1024};
}

Choice choose(const DecodeArgs& args, int blocks_per_team) {
  const auto takes = [&args](int d_qk, int d_v) {
    return args.d_v == d_v && args.d_qk > d_v && args.d_qk <= d_qk;
  };
  if (takes(576, 512)) return choose<9, 4>(args.bf16, blocks_per_team);
  if (takes(320, 256)) return choose<5, 2>(args.bf16, blocks_per_team);
  return {};
}

class DecodeM64 final : public DeviceKernel {
 public:
  std::string_view name() const override { return "sm90-m64"; }

  std::string why_unsupported(const DecodeArgs& args) const override {
    if (choose(args, 1).kernel == nullptr) {
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
    const int blocks = most_rows > kRows ? kMostBlocks : 1;
    return {.teams = std::max(1, device.multiprocessors / blocks),
            .blocks_per_team = blocks,
            .rows_per_part = blocks * kRows,
            .tile_tokens = kTokens};
  }

  ErrorCode launch(const DecodeArgs& args, const KernelGeometry& geometry,
                   StreamHandle stream) const override {
    const Choice choice = choose(args, geometry.blocks_per_team);
    const int tokens = std::min(box_tokens(args), kTokens / geometry.blocks_per_team);
    CUtensorMap map;
    if (const ErrorCode error = map_cache(args, tokens, map); error != cudaSuccess) return error;
    if (const cudaError_t error =
            cudaFuncSetAttribute(reinterpret_cast<const void*>(choice.kernel),
                                 cudaFuncAttributeMaxDynamicSharedMemorySize, choice.shared_bytes);
        error != cudaSuccess) {
      return error;
    }
    cudaLaunchAttribute attributes[3];
    attributes[0].id = cudaLaunchAttributeCooperative;  // blocks wait for one another's parts
    attributes[0].val.cooperative = 1;
    attributes[1].id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attributes[1].val.programmaticStreamSerializationAllowed = 1;
    attributes[2].id = cudaLaunchAttributeClusterDimension;
    attributes[2].val.clusterDim.x = static_cast<unsigned>(geometry.blocks_per_team);
    attributes[2].val.clusterDim.y = 1;
    attributes[2].val.clusterDim.z = 1;
    cudaLaunchConfig_t config{};
    config.gridDim = static_cast<unsigned>(geometry.teams * geometry.blocks_per_team);
    config.blockDim = kThreads;
    config.dynamicSmemBytes = static_cast<std::size_t>(choice.shared_bytes);
    config.stream = stream;
    config.attrs = attributes;
    config.numAttrs = geometry.blocks_per_team == 1 ? 2 : 3;
    return cudaLaunchKernelEx(&config, choice.kernel, args, map, tokens);
  }
};

}  // namespace

const DeviceKernel& decode_m64() {
  static const DecodeM64 kernel;
  return kernel;
}

}  // namespace mla::kernels::cuda::sm90
