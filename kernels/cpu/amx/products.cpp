#include <cstddef>
#include <cstdint>

#include "kernels/cpu/amx/decode.h"
#include "kernels/cpu/amx/sums.h"
#include "kernels/cpu/amx/tiles.h"

namespace mla::kernels::amx {

double run_products(std::int64_t count) noexcept {
  constexpr int kChains = 6;  // what two operands leave of eight tiles
  alignas(64) std::uint32_t ones[kTileWords];
  for (std::uint32_t& pair : ones) pair = 0x3f803f80;
  HardwareTiles::configure();
  HardwareTiles::load<6>(ones, kTileRowBytes);
  HardwareTiles::load<7>(ones, kTileRowBytes);
  for_each_index<kChains>([]<int kSum>()
                              __attribute__((always_inline)) { HardwareTiles::zero<kSum>(); });
  std::int64_t done = 0;
  for (; done < count; done += kChains) {
    for_each_index<kChains>([]<int kSum>() __attribute__((always_inline)) {
      HardwareTiles::multiply_add<kSum, 6, 7>();
    });
  }
  HardwareTiles::release();
  return static_cast<double>(done) * 2 * kTileRows * kTileRows * 2 * (kTileRowBytes / 4);
}

}  // namespace mla::kernels::amx
