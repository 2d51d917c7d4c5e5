#include "kernels/cpu/avx2/decode.h"

#include "kernels/cpu/avx2/simd.h"
#include "kernels/cpu/fp32_scheme.h"

namespace mla::kernels::avx2 {
namespace {

/// 12 sums, 2 or 3 loaded vectors and a broadcast fit 16 registers.
struct Tiles : Simd {
  static constexpr int kScoreTokens[] = {8, 6};
  static constexpr int kTileRows = 6;
  static constexpr int kTileVectors = 2;
  static constexpr int kBlockTokens = 64;
};

}  // namespace

void decode(const DecodeParams& params, Range chunks, float* nodes,
            const cpu::Scratch& scratch) noexcept {
  cpu::decode_with<cpu::Fp32Scheme<Tiles>>(params, chunks, nodes, scratch);
}

double run_products(std::int64_t count) noexcept {
  return cpu::Fp32Scheme<Tiles>::run_products(count);
}

}  // namespace mla::kernels::avx2
