#include "kernels/cuda/simt/tile.h"

#include <algorithm>

namespace mla::kernels::cuda::simt {

Tile choose_tile(const DeviceProfile& profile, std::int64_t rows, std::int64_t d_v) {
  Tile tile;
  if (tile.registers_per_thread() > profile.registers_per_thread) tile.thread_rows = 4;
  tile.thread_dims = d_v <= 4 * kGroupThreads ? 4 : 8;
  const Tile larger{tile.thread_rows, 2, tile.thread_dims};
  const std::int64_t registers = std::int64_t{larger.registers_per_thread()} * larger.threads();
  if (rows > tile.rows() && larger.shared_bytes() <= profile.shared_bytes_per_block &&
      registers <= profile.registers_per_multiprocessor) {
    tile = larger;
  }
  return tile;
}

int resident_blocks(const DeviceProfile& profile, const Tile& tile) {
  const std::int64_t registers = std::int64_t{tile.registers_per_thread()} * tile.threads();
  return static_cast<int>(
      std::max<std::int64_t>(1, profile.registers_per_multiprocessor / registers));
}

}  // namespace mla::kernels::cuda::simt
