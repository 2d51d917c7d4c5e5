#include "kernels/cpu/avx512/project.h"
#include "kernels/workspace.h"

namespace mla::kernels::avx512 {
namespace {

class Bf16Projection final : public ProjectionKernel {
 public:
  std::string_view layout() const override { return "[d_out / 32][d_in / 2][32] pairs"; }

  std::int64_t packed_bytes(std::int64_t d_in, std::int64_t d_out) const override {
    return d_in * round_up(d_out, kPanel) * 2;
  }

  void pack(const HeadMatrices& m, std::int64_t head, std::byte* to) const noexcept override {
    const std::uint16_t* from = m.data + head * m.head_stride;
    auto* out = reinterpret_cast<std::uint16_t*>(to);
    for (std::int64_t panel = 0; panel < m.d_out; panel += kPanel) {
      for (std::int64_t i = 0; i < m.d_in; i += 2) {
        for (std::int64_t o = panel; o < panel + kPanel; ++o, out += 2) {
          const std::uint16_t* pair = from + i * m.in_stride + o * m.out_stride;
          out[0] = o < m.d_out ? pair[0] : std::uint16_t{0};
          out[1] = o < m.d_out ? pair[m.in_stride] : std::uint16_t{0};
        }
      }
    }
  }

  std::int64_t workspace_bytes(std::int64_t d_in) const override {
    return round_up(kMaxProductRows * d_in * 2, 64);
  }

  void multiply(const HeadProduct& product,
                std::span<std::byte> workspace) const noexcept override {
    multiply_bf16(product, reinterpret_cast<std::uint16_t*>(workspace.data()));
  }

  void normalise(const PartialView& partial, std::uint16_t* y,
                 std::int64_t y_stride) const noexcept override {
    normalise_bf16(partial, y, y_stride);
  }
};

}  // namespace

const ProjectionKernel& bf16_projection_kernel() {
  static const Bf16Projection instance;
  return instance;
}

}  // namespace mla::kernels::avx512
