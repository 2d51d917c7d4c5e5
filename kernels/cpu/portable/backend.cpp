#include "kernels/cpu/portable/backend.h"

#include "kernels/cpu/cpu_backend.h"
#include "kernels/cpu/fp32_scheme.h"
#include "kernels/cpu/portable/simd.h"

namespace mla::kernels::portable {
namespace {

#if defined(__AVX512F__)
struct Tiles : Simd<64> {
  static constexpr int kScoreTokens[] = {16, 8, 8};
  static constexpr int kTileRows = 8;
  static constexpr int kTileVectors = 3;
  static constexpr int kBlockTokens = 64;
};
#elif defined(__AVX__)
struct Tiles : Simd<32> {
  static constexpr int kScoreTokens[] = {8, 6};
  static constexpr int kTileRows = 6;
  static constexpr int kTileVectors = 2;
  static constexpr int kBlockTokens = 64;
};
#else
struct Tiles : Simd<16> {
  static constexpr int kScoreTokens[] = {8, 6};
  static constexpr int kTileRows = 6;
  static constexpr int kTileVectors = 2;
  static constexpr int kBlockTokens = 64;
};
#endif
using Scheme = cpu::Fp32Scheme<Tiles>;

void decode(const DecodeParams& params, Range chunks, float* nodes,
            const cpu::Scratch& scratch) noexcept {
  cpu::decode_with<Scheme>(params, chunks, nodes, scratch);
}

double run_products(std::int64_t count) noexcept {
  return Scheme::run_products(count);
}

constexpr std::string_view kProduct = Tiles::kLanes == 16  ? "multiply and add of 16 floats"
                                      : Tiles::kLanes == 8 ? "multiply and add of 8 floats"
                                                           : "multiply and add of 4 floats";
constexpr cpu::CpuKernel kKernel{decode, kProduct, run_products};
constexpr cpu::CpuKernels kKernels{"portable", [] { return std::string{}; }, kKernel, kKernel};

}  // namespace

const HostBackend& backend() {
  static const cpu::CpuBackend instance(kKernels);
  return instance;
}

}  // namespace mla::kernels::portable
