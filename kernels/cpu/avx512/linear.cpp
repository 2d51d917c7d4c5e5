#include "kernels/cpu/avx512/linear.h"

#include "kernels/cpu/avx512/simd.h"
#include "kernels/cpu/linear_scheme.h"

namespace mla::kernels::avx512 {
namespace {

/// 24 sums, 6 vectors of x and one of weights fit 32 registers.
struct Tiles : Simd {
  static constexpr int kLinearRows = 6;
};

}  // namespace

void multiply_linear(const LinearParams& layer, Range outputs, const std::byte*) noexcept {
  cpu::LinearScheme<Tiles>::multiply(layer, outputs);
}

}  // namespace mla::kernels::avx512
