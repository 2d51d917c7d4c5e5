#include "kernels/cpu/portable/decode.h"

#include "kernels/cpu/fp32_scheme.h"
#include "kernels/cpu/portable/simd.h"

namespace mla::kernels::portable {
namespace {

#if defined(__AVX512F__)
struct Tiles : Simd<64> {
  static constexpr int kScoreTokens[] = {16, 8, 8};
  static constexpr int kTileRows = 8;
  static constexpr int kTileVectors = 3;
};
#elif defined(__AVX__)
struct Tiles : Simd<32> {
  static constexpr int kScoreTokens[] = {8, 6};
  static constexpr int kTileRows = 6;
  static constexpr int kTileVectors = 2;
};
#else
struct Tiles : Simd<16> {
  static constexpr int kScoreTokens[] = {8, 6};
  static constexpr int kTileRows = 6;
  static constexpr int kTileVectors = 2;
};
#endif

}  // namespace

void decode(const DecodeParams& params, Range chunks, float* nodes,
            const cpu::Scratch& scratch) noexcept {
  cpu::decode_with<cpu::Fp32Scheme<Tiles>>(params, chunks, nodes, scratch);
}

}  // namespace mla::kernels::portable
