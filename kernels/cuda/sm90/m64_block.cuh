#pragma once

#include <cstdint>

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "kernels/cuda/decode_args.h"
#include "kernels/cuda/sm90/ptx.cuh"
#include "kernels/cuda/sm90/tensor_map.h"

// What the warpgroups of a block of decode_m64 share: its memory, its work, their places in it.

namespace mla::kernels::cuda::sm90::m64 {

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
  std::uint64_t weighted[kValueStages];   // weights and scales are there
  std::uint64_t taken;                    // the rounded weights have been multiplied,
  std::uint64_t rest;                     // and what rounding took from them has their place
  std::int32_t has_rest[kValueStages];
};

__device__ __forceinline__ int keys_of(const Part& part) {
  return part.rows > 0 ? part.token_end - part.token_begin : 0;
}

/// What a block has to do of a part.
struct Work {
  Part part;
  int rows;       // of this block, at most kRows
  int row_begin;  // of the part's
  int tiles;

  __device__ Work(const DecodeArgs& args, int index, int block_in_team) : part(args.parts[index]) {
    row_begin = block_in_team * kRows;
    rows = min(kRows, max(0, part.rows - row_begin));
    tiles = __shfl_sync(~0U, (keys_of(part) + kTokens - 1) / kTokens, 0);
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

/// The two rows, row and row + 8, that a thread has of a warpgroup's sums.
struct RowPair {
  float of[2];
};

}  // namespace mla::kernels::cuda::sm90::m64
