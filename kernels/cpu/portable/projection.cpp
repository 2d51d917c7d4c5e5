#include "kernels/cpu/portable/projection.h"

#include <algorithm>

#include "kernels/cpu/portable/simd.h"
#include "kernels/workspace.h"

namespace mla::kernels::portable {
namespace {

constexpr std::int64_t kPanel = 16;    // output elements side by side
constexpr std::int64_t kTileRows = 4;  // times half a panel: sums in registers
constexpr std::int64_t kTileDims = 8;

using Floats = Simd<16>;
using Vector = Floats::Vector;

template <DType kDType>
void widen_all(const std::uint16_t* from, std::int64_t n, float* to) {
  std::int64_t i = 0;
  for (; i + Floats::kLanes <= n; i += Floats::kLanes) {
    Floats::store(to + i, Floats::widen<kDType>(from + i));
  }
  for (; i < n; ++i) {
    to[i] = kDType == DType::kBf16 ? to_float(Bf16{from[i]}) : to_float(Fp16{from[i]});
  }
}

void widen(DType dtype, const std::uint16_t* from, std::int64_t n, float* to) {
  if (dtype == DType::kBf16) {
    widen_all<DType::kBf16>(from, n, to);
  } else {
    widen_all<DType::kFp16>(from, n, to);
  }
}

void narrow(DType dtype, const float* from, std::int64_t n, std::uint16_t* to) {
  if (dtype == DType::kBf16) {
    for (std::int64_t i = 0; i < n; ++i) to[i] = to_bf16(from[i]).bits;
  } else {
    for (std::int64_t i = 0; i < n; ++i) to[i] = to_fp16(from[i]).bits;
  }
}

/// y[row][8] = sum over i of x[row][i] * w[i][8], in order.
template <std::int64_t kRows>
void multiply_tile(const float* x, std::int64_t d_in, const float* w, float* y) {
  Vector sum[kRows][2] = {};
  for (std::int64_t i = 0; i < d_in; ++i) {
    const Vector w0 = Floats::load(w + i * kPanel);
    const Vector w1 = Floats::load(w + i * kPanel + 4);
    for (std::int64_t r = 0; r < kRows; ++r) {
      const float element = x[r * d_in + i];
      sum[r][0] += w0 * element;
      sum[r][1] += w1 * element;
    }
  }
  for (std::int64_t r = 0; r < kRows; ++r) {
    Floats::store(y + r * kPanel, sum[r][0]);
    Floats::store(y + r * kPanel + 4, sum[r][1]);
  }
}

struct Scratch {
  float* x;  ///< [64][d_in]
  float* w;  ///< [d_in][16], one panel
  float* y;  ///< [64][16]

  Scratch(WorkspaceCutter& cut, std::int64_t d_in)
      : x(cut.take<float>(kMaxProductRows * d_in)),
        w(cut.take<float>(d_in * kPanel)),
        y(cut.take<float>(kMaxProductRows * kPanel)) {}
};

class Fp32Projection final : public ProjectionKernel {
 public:
  explicit Fp32Projection(DType dtype) : dtype_(dtype) {}

  std::string_view layout() const override { return "[d_out / 16][d_in][16]"; }

  std::int64_t packed_bytes(std::int64_t d_in, std::int64_t d_out) const override {
    return d_in * d_out * 2;
  }

  void pack(const HeadMatrices& m, std::int64_t head, std::byte* to) const noexcept override {
    const std::uint16_t* from = m.data + head * m.head_stride;
    auto* out = reinterpret_cast<std::uint16_t*>(to);
    for (std::int64_t o = 0; o < m.d_out; o += kPanel) {
      for (std::int64_t i = 0; i < m.d_in; ++i) {
        for (std::int64_t k = 0; k < kPanel; ++k) {
          *out++ = from[i * m.in_stride + (o + k) * m.out_stride];
        }
      }
    }
  }

  std::int64_t workspace_bytes(std::int64_t d_in) const override {
    WorkspaceCutter cut(nullptr);
    const Scratch scratch(cut, d_in);
    return cut.bytes();
  }

  void multiply(const HeadProduct& p, std::span<std::byte> workspace) const noexcept override {
    WorkspaceCutter cut(workspace.data());
    const Scratch s(cut, p.d_in);
    load_rows(p, s.x);
    const auto* panel = reinterpret_cast<const std::uint16_t*>(p.packed.data());
    for (std::int64_t o = 0; o < p.d_out; o += kPanel, panel += p.d_in * kPanel) {
      widen(dtype_, panel, p.d_in * kPanel, s.w);
      for (std::int64_t dim = 0; dim < kPanel; dim += kTileDims) {
        std::int64_t row = 0;
        for (; row + kTileRows <= p.rows; row += kTileRows) {
          multiply_tile<kTileRows>(s.x + row * p.d_in, p.d_in, s.w + dim, s.y + row * kPanel + dim);
        }
        for (; row < p.rows; ++row) {
          multiply_tile<1>(s.x + row * p.d_in, p.d_in, s.w + dim, s.y + row * kPanel + dim);
        }
      }
      store_panel(p, o, s.y);
    }
  }

  void normalise(const PartialView& partial, std::uint16_t* y,
                 std::int64_t y_stride) const noexcept override {
    constexpr std::int64_t kDims = 16;  // d_v is a multiple of it
    float out[kDims];
    for (std::int64_t row = 0; row < partial.rows; ++row) {
      for (std::int64_t d = 0; d < partial.d_v; d += kDims) {
        finalize_out(partial, row, {d, d + kDims}, out);
        narrow(dtype_, out, kDims, y + row * y_stride + d);
      }
    }
  }

 private:
  void load_rows(const HeadProduct& p, float* x) const {
    for (std::int64_t row = 0; row < p.rows; ++row, x += p.d_in) {
      if (p.x_dtype == DType::kFp32) {
        std::copy_n(static_cast<const float*>(p.x) + row * p.x_stride, p.d_in, x);
      } else {
        widen(dtype_, static_cast<const std::uint16_t*>(p.x) + row * p.x_stride, p.d_in, x);
      }
    }
  }

  void store_panel(const HeadProduct& p, std::int64_t dim, const float* y) const {
    for (std::int64_t row = 0; row < p.rows; ++row, y += kPanel) {
      if (p.y_dtype == DType::kFp32) {
        std::copy_n(y, kPanel, static_cast<float*>(p.y) + row * p.y_stride + dim);
      } else {
        narrow(dtype_, y, kPanel, static_cast<std::uint16_t*>(p.y) + row * p.y_stride + dim);
      }
    }
  }

  DType dtype_;
};

}  // namespace

const ProjectionKernel& projection_kernel(DType dtype) {
  static const Fp32Projection bf16(DType::kBf16);
  static const Fp32Projection fp16(DType::kFp16);
  return dtype == DType::kBf16 ? bf16 : fp16;
}

}  // namespace mla::kernels::portable
