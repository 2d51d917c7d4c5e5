#include "kernels/cpu/portable/linear.h"

#include "kernels/cpu/linear_scheme.h"
#include "kernels/cpu/portable/simd.h"

namespace mla::kernels::portable {
namespace {

/// 8 sums, 2 vectors of x and one of weights leave 5 of 16 registers for products.
struct Tiles : Simd<16> {
  static constexpr int kLinearRows = 2;
};

}  // namespace

void multiply_linear(const LinearParams& layer, Range outputs, const std::byte*) noexcept {
  cpu::LinearScheme<Tiles>::multiply(layer, outputs);
}

}  // namespace mla::kernels::portable
