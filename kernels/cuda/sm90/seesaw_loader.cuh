#pragma once

#include "kernels/cuda/sm90/m64_loader.cuh"
#include "kernels/cuda/sm90/seesaw_block.cuh"

namespace mla::kernels::cuda::sm90::seesaw {

/// One warp keeps half the slabs of both tiles full. The slab without values goes with the half
/// that is given back last: the right one of x, the left one of y, which has the weights there.
template <int kSlabs>
__device__ void load_half(Loader loader, Memory<kSlabs>& shared, int half) {
  constexpr int kHalf = (kSlabs - 1) / 2;
  const int lane = static_cast<int>(threadIdx.x % 32);
  std::uint32_t parity[2] = {1, 1};
  while (loader.has_next()) {
    const int tile = loader.tile % 2;
    const bool has_tail = half != tile;
    int slab = lane < kHalf ? half * kHalf + lane : -1;
    if (lane == kHalf && has_tail) slab = kSlabs - 1;
    const int place = max(slab, 0);
    wait(shared_address(&shared.empty[tile][half]), parity[tile]);
    parity[tile] ^= 1;
    loader.copy_next(slab, shared_address(shared.keys[tile][place]),
                     shared_address(&shared.full[tile][place]));
  }
}

}  // namespace mla::kernels::cuda::sm90::seesaw
