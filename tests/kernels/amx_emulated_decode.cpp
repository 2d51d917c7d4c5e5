// Compiled for AVX-512, so it includes nothing but kernels, and all templates take a type of an
// unnamed namespace.

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "kernels/cpu/amx/chunk_loop.h"
#include "kernels/cpu/amx/linear_scheme.h"
#include "kernels/cpu/amx/tiles.h"
#include "tests/kernels/amx_emulated.h"

namespace mla::test {
namespace {

/// The tiles of `kernels::amx::HardwareTiles` in plain memory, one set per thread. Sums are rounded
/// in the order, and subnormals flushed where, the pseudo-code of TDPBF16PS in Intel's
/// "Architecture Instruction Set Extensions Programming Reference" says. Using a tile that was not
/// configured ends the process.
struct EmulatedTiles {
  static void configure() { state().configured = true; }
  static void release() { state().configured = false; }

  template <int kTile>
  static void zero() {
    std::memset(rows<kTile>(), 0, sizeof(Tile));
  }
  template <int kTile>
  static void load(const void* from, std::int64_t stride) {
    const auto* bytes = static_cast<const std::byte*>(from);
    for (auto& row : rows<kTile>()->words) {
      std::memcpy(row, bytes, sizeof row);
      bytes += stride;
    }
  }
  template <int kTile>
  static void load_streamed(const void* from, std::int64_t stride) {
    load<kTile>(from, stride);
  }
  template <int kTile>
  static void store(void* to, std::int64_t stride) {
    auto* bytes = static_cast<std::byte*>(to);
    for (const auto& row : rows<kTile>()->words) {
      std::memcpy(bytes, row, sizeof row);
      bytes += stride;
    }
  }

  template <int kSum, int kA, int kB>
  static void multiply_add() {
    const Tile& a = *rows<kA>();
    const Tile& b = *rows<kB>();
    Tile& sum = *rows<kSum>();
    for (int m = 0; m < kRows; ++m) {
      float low[kColumns] = {};
      float high[kColumns] = {};
      for (int k = 0; k < kColumns; ++k) {
        const float a_low = low_of(a.words[m][k]);
        const float a_high = high_of(a.words[m][k]);
        for (int n = 0; n < kColumns; ++n) {
          low[n] = flushed(__builtin_fmaf(a_low, low_of(b.words[k][n]), low[n]));
          high[n] = flushed(__builtin_fmaf(a_high, high_of(b.words[k][n]), high[n]));
        }
      }
      for (int n = 0; n < kColumns; ++n) {
        const float before = flushed(std::bit_cast<float>(sum.words[m][n]));
        const float after = flushed(before + flushed(low[n] + high[n]));
        sum.words[m][n] = std::bit_cast<std::uint32_t>(after);
      }
    }
  }

 private:
  static constexpr int kRows = kernels::amx::kTileRows;
  static constexpr int kColumns = kernels::amx::kTileRowBytes / 4;
  struct Tile {
    std::uint32_t words[kRows][kColumns];
  };
  struct State {
    Tile tiles[8];
    bool configured = false;
  };

  static State& state() {
    static thread_local State instance;
    return instance;
  }
  template <int kTile>
  static Tile* rows() {
    if (!state().configured) std::abort();
    return &state().tiles[kTile];
  }

  static float flushed(float x) {
    const auto bits = std::bit_cast<std::uint32_t>(x);
    const bool subnormal = (bits & 0x7f800000U) == 0;
    return std::bit_cast<float>(subnormal ? bits & 0x80000000U : bits);
  }
  static float low_of(std::uint32_t pair) { return flushed(std::bit_cast<float>(pair << 16)); }
  static float high_of(std::uint32_t pair) {
    return flushed(std::bit_cast<float>(pair & 0xffff0000U));
  }
};

}  // namespace

void decode_on_emulated_tiles(const kernels::DecodeParams& params, Range chunks, float* nodes,
                              const kernels::amx::Scratch& scratch) noexcept {
  kernels::amx::decode_with<EmulatedTiles>(params, chunks, nodes, scratch);
}

void multiply_on_emulated_tiles(const kernels::LinearParams& layer, Range outputs,
                                const std::byte* packed_x) noexcept {
  kernels::amx::LinearScheme<EmulatedTiles>{layer, packed_x}.multiply(outputs);
}

}  // namespace mla::test
