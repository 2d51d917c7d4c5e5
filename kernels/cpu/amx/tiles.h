#pragma once

#include <cstdint>

// Included only by files compiled for AMX; forced inline, so that no copy of it can be linked into
// code for other CPUs.

namespace mla::kernels::amx {

inline constexpr int kTileRows = 16;
inline constexpr int kTileRowBytes = 64;
inline constexpr int kTileWords = 256;  ///< floats, or pairs of bf16, of one tile

/// The CPU's eight tiles of 16 rows of 64 bytes. The kernels are templates over this type, so that
/// tests can run them with tiles in plain memory. Instructions are written out since compilers
/// disagree on whether a tile's number may come from a template.
struct HardwareTiles {
  /// Makes all eight tiles usable on this thread until `release`.
  [[gnu::always_inline]] static void configure() {
    struct alignas(64) Config {
      std::uint8_t palette = 1;
      std::uint8_t start_row = 0;
      std::uint8_t reserved[14] = {};
      std::uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
      std::uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
    };
    static_assert(sizeof(Config) == 64);
    const Config config;
    asm volatile("ldtilecfg %0" : : "m"(config));
  }
  [[gnu::always_inline]] static void release() { asm volatile("tilerelease"); }

  template <int kTile>
  [[gnu::always_inline]] static void zero() {
    asm volatile("tilezero %%tmm%c0" : : "i"(kTile));
  }

  /// Rows lie `stride` bytes apart.
  template <int kTile>
  [[gnu::always_inline]] static void load(const void* from, std::int64_t stride) {
    asm volatile("tileloadd (%0,%1,1), %%tmm%c2" : : "r"(from), "r"(stride), "i"(kTile) : "memory");
  }
  /// The same without a place in L1: for what is not needed again before much else is.
  template <int kTile>
  [[gnu::always_inline]] static void load_streamed(const void* from, std::int64_t stride) {
    asm volatile("tileloaddt1 (%0,%1,1), %%tmm%c2"
                 :
                 : "r"(from), "r"(stride), "i"(kTile)
                 : "memory");
  }
  template <int kTile>
  [[gnu::always_inline]] static void store(void* to, std::int64_t stride) {
    asm volatile("tilestored %%tmm%c2, (%0,%1,1)" : : "r"(to), "r"(stride), "i"(kTile) : "memory");
  }

  /// sum[m][n] += a[m][2k] b[k][2n] + a[m][2k + 1] b[k][2n + 1] over the 16 pairs k of bf16.
  template <int kSum, int kA, int kB>
  [[gnu::always_inline]] static void multiply_add() {
    asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(kSum), "i"(kA), "i"(kB));
  }
};

}  // namespace mla::kernels::amx
