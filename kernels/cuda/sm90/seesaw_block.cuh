#pragma once

#include "kernels/cuda/sm90/m64_block.cuh"

// What the warpgroups of a block of decode_seesaw share.

namespace mla::kernels::cuda::sm90::seesaw {

using namespace m64;  // rows, tiles and slabs are those of decode_m64

constexpr int kBlockThreads = 3 * kGroup;
constexpr int kConsumers = 2 * kGroup;
constexpr int kConsumerRegisters = 240;
constexpr int kLoaderRegisters = 24;

enum NamedBarrier : int { kAll = 1, kReadyX, kReadyY, kClearLeft, kClearRight };

/// Most teams of a launch, so most partials of a merge.
constexpr int kMostTeams = 160;

enum Tile : int { kX, kY };

/// `kSlabs` slabs of 64 elements hold a cache row. All but the last are values too, half of them
/// for either side. That of y keeps the weights of y once its scores are computed.
template <int kSlabs>
struct __align__(1024) Memory {
  std::uint8_t q[kSlabs][kSlabBytes];
  std::uint8_t keys[2][kSlabs][kSlabBytes];
  std::uint8_t weights_x[kSlabBytes];
  float m[2][kRows];  // bases, as far as either side knows
  float l[2][kRows];
  std::uint64_t merge_full;
  std::uint64_t full[2][kSlabs];
  std::uint64_t empty[2][2];  // [tile][half]
};

}  // namespace mla::kernels::cuda::sm90::seesaw
