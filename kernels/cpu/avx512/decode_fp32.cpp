#include "kernels/cpu/avx512/decode.h"
#include "kernels/cpu/avx512/simd.h"
#include "kernels/cpu/fp32_scheme.h"

namespace mla::kernels::avx512 {
namespace {

/// 24 sums, 3 loaded vectors and a broadcast fit 32 registers. A block of 128 tokens passes over
/// the outputs half as often as one of 64; its slab fills the L1 cache of newer CPUs.
struct Tiles : Simd {
  static constexpr int kScoreTokens[] = {16, 8, 8};
  static constexpr int kTileRows = 8;
  static constexpr int kTileVectors = 3;
  static constexpr int kBlockTokens = 128;
};

}  // namespace

void decode_fp32(const DecodeParams& params, Range chunks, float* nodes,
                 const cpu::Scratch& scratch) noexcept {
  cpu::decode_with<cpu::Fp32Scheme<Tiles>>(params, chunks, nodes, scratch);
}

double run_fp32_products(std::int64_t count) noexcept {
  return cpu::Fp32Scheme<Tiles>::run_products(count);
}

}  // namespace mla::kernels::avx512
