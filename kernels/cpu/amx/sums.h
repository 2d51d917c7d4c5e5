#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>

#include "kernels/cpu/amx/tiles.h"

// Included only by files compiled for AMX. `Tiles` is a type of an unnamed namespace, so that
// nothing here is linked elsewhere.

namespace mla::kernels::amx {

/// Tiles of one side of a product, one for each step along the sums.
struct Operand {
  const void* data;
  std::int64_t row_bytes;   ///< between the rows of a tile
  std::int64_t step_bytes;  ///< between tiles
};

/// Tiles that leave the L1 cache to those of the other side.
struct StreamedOperand : Operand {};

/// Tiles that follow one another.
[[gnu::always_inline]] inline Operand packed_tiles(const std::uint32_t* tiles) {
  return {tiles, kTileRowBytes, kTileRows * kTileRowBytes};
}

/// The same tiles, the last of `steps` first.
[[gnu::always_inline]] inline Operand backwards(const Operand& operand, std::int64_t steps) {
  const auto* data = static_cast<const std::byte*>(operand.data);
  return {data + (steps - 1) * operand.step_bytes, operand.row_bytes, -operand.step_bytes};
}

template <class F, int... kIndices>
[[gnu::always_inline]] inline void call_for_each(F&& f, std::integer_sequence<int, kIndices...>) {
  (f.template operator()<kIndices>(), ...);
}
/// f<0>(), f<1>() .. f<kCount - 1>()
template <int kCount, class F>
[[gnu::always_inline]] inline void for_each_index(F&& f) {
  call_for_each(f, std::make_integer_sequence<int, kCount>{});
}

/// At most four tiles of sums, tiles 0 to 3: those of kA operands times kB operands, sum i * kB + j
/// for operands a[i] and b[j]. Four hide the latency of one product; the other four tiles hold
/// operands.
template <class Tiles, int kA, int kB>
struct Sums {
  static constexpr int kSums = kA * kB;
  static_assert(kSums <= 4);
  static constexpr int kTilesForA = kA == 4 ? 3 : kA;
  static constexpr int kTilesForB = kB == 4 ? 3 : kB;

  [[gnu::always_inline]] static void zero() {
    for_each_index<kSums>([]<int kSum>()
                              __attribute__((always_inline)) { Tiles::template zero<kSum>(); });
  }

  /// `tile(i, j)` says where the tile of sums lies, its rows `row_bytes` apart.
  template <class TileAt>
  [[gnu::always_inline]] static void load(TileAt&& tile, std::int64_t row_bytes = kTileRowBytes) {
    for_each_index<kSums>([&]<int kSum>() __attribute__((always_inline)) {
      Tiles::template load<kSum>(tile(kSum / kB, kSum % kB), row_bytes);
    });
  }
  template <class TileAt>
  [[gnu::always_inline]] static void store(TileAt&& tile, std::int64_t row_bytes = kTileRowBytes) {
    for_each_index<kSums>([&]<int kSum>() __attribute__((always_inline)) {
      Tiles::template store<kSum>(tile(kSum / kB, kSum % kB), row_bytes);
    });
  }

  /// Adds the products of `steps` tiles of each operand, in order; calls `between()` at each step.
  template <class OperandA, class Between>
  [[gnu::always_inline]] static void multiply_add(const OperandA (&a)[kA], const Operand (&b)[kB],
                                                  std::int64_t steps, Between&& between) {
    for (std::int64_t step = 0; step < steps; ++step) {
      between();
      for_each_index<kSums>([&]<int kSum>() __attribute__((always_inline)) {
        constexpr int i = kSum / kB;
        constexpr int j = kSum % kB;
        constexpr int kTileA = 4 + i % kTilesForA;
        constexpr int kTileB = 4 + kTilesForA + j % kTilesForB;
        if constexpr (j == 0) load<kTileA>(a[i], step);
        if constexpr (i == 0) load<kTileB>(b[j], step);
        Tiles::template multiply_add<kSum, kTileA, kTileB>();
      });
    }
  }

 private:
  [[gnu::always_inline]] static const void* tile(const Operand& operand, std::int64_t step) {
    return static_cast<const std::byte*>(operand.data) + step * operand.step_bytes;
  }
  template <int kTile>
  [[gnu::always_inline]] static void load(const Operand& operand, std::int64_t step) {
    Tiles::template load<kTile>(tile(operand, step), operand.row_bytes);
  }
  template <int kTile>
  [[gnu::always_inline]] static void load(const StreamedOperand& operand, std::int64_t step) {
    Tiles::template load_streamed<kTile>(tile(operand, step), operand.row_bytes);
  }
};

}  // namespace mla::kernels::amx
