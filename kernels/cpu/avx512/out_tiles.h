#pragma once

#include <cstdint>

#include "core/partial.h"
#include "core/split_plan.h"
#include "kernels/cpu/scratch.h"
#include "kernels/cpu/tiles.h"

// How the outputs of a block are cut into register tiles, where weights are bf16 and some rows get
// a second pass. A Scheme is a type of an unnamed namespace that has, beside what cpu/chunk_loop.h
// asks for,
//   kTileRows, kTileVectors            most query rows and vectors of a tile
//   accumulate<kRows, kVectors>(tile)  one tile of o <- rescale o + weights V

namespace mla::kernels::avx512 {

/// What the outputs of earlier blocks are to the tile at hand.
enum class Earlier : std::uint8_t { kNone, kKept, kRescaled };

/// Query rows whose outputs take up a block of weighted values.
struct RowSet {
  const std::int32_t* rows;
  std::int64_t count;
  const std::uint32_t* weights;  ///< [token pair][place in `rows`]
  std::int64_t ld;               ///< between token pairs of `weights`
};

/// Part of the output accumulators: some query rows times some vectors of value elements.
struct OutTile {
  const cpu::Scratch& scratch;
  int tokens;                    ///< of the block
  const std::int32_t* rows;      ///< the tile's query rows
  const std::uint32_t* weights;  ///< of the tile's first row
  std::int64_t ld;               ///< as in RowSet
  std::int64_t dim;              ///< first value element
  float* out;                    ///< [query row][d_v], at `dim`
  std::int64_t d_v;
  Earlier earlier;

  [[gnu::always_inline]] float* out_row(int r) const { return out + rows[r] * d_v; }
};

/// o <- rescale * o + weights * V for the rows of `set` and a block of `tokens` tokens. `earlier`
/// says what becomes of the earlier outputs. Rescaling by exactly 1 changes no bit, so it is left
/// out in tiles where no maximum moved.
template <class Scheme>
[[gnu::noinline]] void accumulate_rows(const cpu::Scratch& s, int tokens, const RowSet& set,
                                       const PartialView& result, Earlier earlier) {
  constexpr int kLanes = Scheme::Simd::kLanes;
  Earlier earlier_at[kMaxRowsPerItem];
  cpu::deal(set.count, Scheme::kTileRows, [&](std::int64_t place, std::int64_t rows) {
    bool moved = false;
    for (std::int64_t i = place; i < place + rows; ++i) {
      moved = moved || s.rescale[set.rows[i]] != 1;
    }
    earlier_at[place] = earlier == Earlier::kRescaled && !moved ? Earlier::kKept : earlier;
  });
  cpu::deal(
      result.d_v / kLanes, Scheme::kTileVectors, [&](std::int64_t vector, std::int64_t vectors) {
        cpu::deal(set.count, Scheme::kTileRows, [&](std::int64_t place, std::int64_t rows) {
          const std::int64_t dim = vector * kLanes;
          const OutTile tile{s,   tokens,         set.rows + place, set.weights + place, set.ld,
                             dim, result.o + dim, result.d_v,       earlier_at[place]};
          cpu::with_constant<Scheme::kTileVectors>(vectors, [&]<int kVectors>() {
            cpu::with_constant<Scheme::kTileRows>(
                rows, [&]<int kRows>() { Scheme::template accumulate<kRows, kVectors>(tile); });
          });
        });
      });
}

}  // namespace mla::kernels::avx512
