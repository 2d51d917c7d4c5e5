#pragma once

#include <cstdint>

namespace mla::kernels::cuda::simt {

/// What the kernel must keep within.
struct DeviceProfile {
  std::int64_t shared_bytes_per_block = 0;
  int registers_per_thread = 0;  ///< of 32 bits, at most
  std::int64_t registers_per_multiprocessor = 0;
  int lanes_per_warp = 0;
  int multiprocessors = 0;
};

/// Keys that a block looks at between two looks at the maxima. With a row's sums taken in an order
/// that no tile changes, it decides a chunk's bits.
inline constexpr int kStepTokens = 64;

/// Threads that work on the same rows.
inline constexpr int kGroupThreads = 64;

/// Lanes that share a dot product, and by which each thread's elements of it lie apart.
inline constexpr int kDotLanes = 8;
inline constexpr int kDotElements = 8;

/// How a block divides its work. A group of 64 threads has `thread_rows` query rows, and each
/// thread `thread_dims` elements of all their outputs in registers.
struct Tile {
  int thread_rows = 8;  ///< 8 or 4
  int row_groups = 1;   ///< 1 or 2
  int thread_dims = 8;  ///< 8 or 4

  constexpr int rows() const { return thread_rows * row_groups; }
  constexpr int threads() const { return kGroupThreads * row_groups; }
  constexpr int window() const { return kGroupThreads * thread_dims; }  ///< elements of d_v at once

  /// Floats between the scores of two keys: an odd number of fours, against bank conflicts.
  constexpr int score_stride() const { return rows() + 4; }
  constexpr std::int64_t shared_bytes() const {
    return 4 * (kStepTokens * score_stride() + 2 * kStepTokens + 4 * rows());
  }
  /// What the compiler is told to keep within (`__launch_bounds__`).
  constexpr int registers_per_thread() const { return thread_rows == 8 ? 255 : 168; }

  friend constexpr bool operator==(const Tile&, const Tile&) = default;
};

/// The tile for items of up to `rows` query rows.
Tile choose_tile(const DeviceProfile& profile, std::int64_t rows, std::int64_t d_v);

/// Blocks of `tile` that one multiprocessor runs at a time, by its registers; at least 1.
int resident_blocks(const DeviceProfile& profile, const Tile& tile);

}  // namespace mla::kernels::cuda::simt
