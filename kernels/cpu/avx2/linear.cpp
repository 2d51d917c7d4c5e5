#include "kernels/cpu/avx2/linear.h"

#include "kernels/cpu/avx2/simd.h"
#include "kernels/cpu/linear_scheme.h"

namespace mla::kernels::avx2 {
namespace {

/// 12 sums, 3 vectors of x and one of weights fit 16 registers.
struct Tiles : Simd {
  static constexpr int kLinearRows = 3;
};

}  // namespace

void multiply_linear(const LinearParams& layer, Range outputs, const std::byte*) noexcept {
  cpu::LinearScheme<Tiles>::multiply(layer, outputs);
}

}  // namespace mla::kernels::avx2
