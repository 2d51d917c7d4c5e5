#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "kernels/cuda/decode_args.h"
#include "kernels/cuda/sm90/ptx.cuh"
#include "kernels/cuda/sm90/wgmma.cuh"

/// What the warps of a block of decode_m16 share: docs/hopper.md has the whole picture.
namespace mla::kernels::cuda::sm90::m16 {

inline constexpr int kRows = 16;        ///< query rows of a part; the N of all products
inline constexpr int kTileTokens = 64;  ///< keys of a block's step; the M of the score products
inline constexpr int kGroups = 2;       ///< warpgroups that compute, each on tiles of its own
inline constexpr int kGroupThreads = 128;
inline constexpr int kComputeThreads = kGroups * kGroupThreads;
inline constexpr int kThreads = kComputeThreads + 64;  ///< and a warp that loads, and a clerk
inline constexpr int kGroupWarps = kGroupThreads / 32;
inline constexpr int kComputeWarps = kComputeThreads / 32;
inline constexpr int kComputeThreadsLog2 = 8;
static_assert(1 << kComputeThreadsLog2 == kComputeThreads);
inline constexpr int kMostBlocks = 8;  ///< of a cluster

/// The merges that a team shares, and the first of them.
struct alignas(16) TeamMerges {
  std::int32_t begin;
  std::int32_t end;
  MergeShare share;
  Merge merge;
};
static_assert(sizeof(TeamMerges) == 96);

/// Where things lie in shared memory. A tile is columns of 64 tokens x 64 elements; the ring's
/// slots hold some columns each, or at the end of a part pieces of the block's partial.
template <int kDQk, int kDV>
struct Layout {
  static constexpr int kColumns = kDQk / 64;
  static constexpr int kValueColumns = kDV / 64;  ///< those that are values too
  static constexpr int kColumnBytes = kTileTokens * 128;
  static constexpr int kSlotColumns = kColumns % 3 == 0 ? 3 : kColumns;
  static constexpr int kTileSlots = kColumns / kSlotColumns;
  static constexpr int kSlotBytes = kSlotColumns * kColumnBytes;
  static constexpr int kSlots = 200 * 1024 / kSlotBytes;
  static constexpr int kQ = kSlots * kSlotBytes;              ///< [column][16 rows][128 bytes]
  static constexpr int kP = kQ + kColumns * kRows * 128;      ///< [group][16 rows][128 bytes]
  static constexpr int kMaxima = kP + kGroups * kRows * 128;  ///< float [group][16 rows][warp]
  static constexpr int kSums = kMaxima + kGroups * kGroupWarps * kRows * 4;  ///< likewise
  static constexpr int kGroupM = kSums + kGroups * kGroupWarps * kRows * 4;  ///< float [group][16]
  static constexpr int kStats = kGroupM + kGroups * kRows * 4;  ///< float2 (m, l) [block][16 rows]
  static constexpr int kWeights = kStats + kMostBlocks * kRows * 8;  ///< float [block][16 rows]
  static constexpr int kScales = kWeights;  ///< float [16 rows], of a lone block
  static constexpr int kRowPlaces = kWeights + kMostBlocks * kRows * 4;         ///< RowPlace [16]
  static constexpr int kVisible = kRowPlaces + kRows * 16;                      ///< int [16]
  static constexpr int kPart = kVisible + kRows * 4;                            ///< Part
  static constexpr int kMerges = kPart + static_cast<int>(sizeof(Part));        ///< TeamMerges
  static constexpr int kFull = kMerges + static_cast<int>(sizeof(TeamMerges));  ///< mbarrier [slot]
  static constexpr int kEmpty = kFull + kSlots * 8;                             ///< mbarrier [slot]
  static constexpr int kReady = kEmpty + kSlots * 8;          ///< mbarrier: all blocks can receive
  static constexpr int kStatsReceived = kReady + 8;           ///< mbarrier: of all blocks
  static constexpr int kSlicesReceived = kStatsReceived + 8;  ///< mbarrier: of all blocks
  static constexpr int kMerged = kSlicesReceived + 8;  ///< mbarrier: the block has done a part
  static constexpr int kMergesRead = kMerged + 8;  ///< mbarrier: the block's TeamMerges are there
  static constexpr int kBytes = kMergesRead + 8;

  static constexpr int kRingBytes = kSlots * kSlotBytes;
  static_assert(kBytes <= 227 * 1024);
  static_assert(kColumns == kValueColumns + 1 && kValueColumns % 4 == 0);
};

/// The end of a cluster's part, in the linear memory of a tile's slots: first the slices that the
/// team's blocks send (a slice is some pieces, a piece 16 elements of the 16 rows), then the pieces
/// that the groups hand each other. The merged rows replace the latter.
template <int kDQk, int kDV, int kBlocks>
struct Slices {
  using L = Layout<kDQk, kDV>;
  static constexpr int kPieces = kDV / 16;
  static constexpr int kPieceBytes = kRows * 16 * 4;
  static constexpr int kSlicePieces = kPieces / kBlocks;
  static constexpr int kSliceBytes = kSlicePieces * kPieceBytes;
  static constexpr int kHanded = kBlocks * kSliceBytes;
  static_assert(kBlocks <= kMostBlocks && kPieces % kBlocks == 0);
  static_assert(kHanded + kPieces * kPieceBytes <= L::kTileSlots * L::kSlotBytes);

  /// The first piece that a block merges.
  static __device__ __forceinline__ int begin(int block) { return block * kSlicePieces; }
  static __device__ __forceinline__ int owner(int piece) { return piece / kSlicePieces; }
};

/// Where a row's results go: of the part, or of the request.
struct RowPlace {
  char* out;   ///< element 0
  float* lse;  ///< or m
};
static_assert(sizeof(RowPlace) == 16);

/// What a launch adds to DecodeArgs.
struct LaunchParams {
  int box_tokens = 64;  ///< tokens that one copy brings: they lie in one page
  int boxes_log2 = 0;   ///< copies that a tile's 64 tokens take; one brings all columns of a slot
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
  const int tokens = max(part.token_end - part.token_begin, kBlocks == 1 ? 1 : 0);
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

/// Copies a record of 16-byte words into shared memory; `thread` counts from 0.
template <class Record>
__device__ __forceinline__ void copy_record(const Record* from, std::uint32_t to, int thread) {
  if (thread < static_cast<int>(sizeof(Record) / sizeof(uint4))) {
    store_shared(to + thread * 16, __ldg(reinterpret_cast<const uint4*>(from) + thread));
  }
}

/// What to take from exponents whose maximum is `m`, so that an empty row weighs 0, and a NaN that
/// it met stays one.
__device__ __forceinline__ float base_of(float m) {
  return m == -INFINITY ? 0 : m;
}

/// What a row's weighted sum is to be multiplied by.
__device__ __forceinline__ float inverse_of(float l) {
  return l == 0 ? 0 : __fdividef(1, l);
}

__device__ __forceinline__ float lse_of(float m, float l) {
  constexpr float kLn2 = 0.693147180559945309f;
  return l == 0 ? INFINITY : (m + __log2f(l)) * kLn2;
}

/// Writes four elements of a finished row.
__device__ __forceinline__ void write_elements(OutType type, char* out, int element, float4 o) {
  if (type == OutType::kFp32) {
    reinterpret_cast<float4*>(out)[element / 4] = o;
  } else if (type == OutType::kBf16) {
    reinterpret_cast<uint2*>(out)[element / 4] = {pack<true>(o.x, o.y), pack<true>(o.z, o.w)};
  } else {
    reinterpret_cast<uint2*>(out)[element / 4] = {pack<false>(o.x, o.y), pack<false>(o.z, o.w)};
  }
}

}  // namespace mla::kernels::cuda::sm90::m16
