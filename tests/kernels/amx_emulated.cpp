// The scheme of the backend "amx" for machines that have AVX512-BF16 but no AMX: one more backend
// that every test of this folder runs.

#include "tests/kernels/amx_emulated.h"

#include <algorithm>
#include <cstring>

#include <gtest/gtest.h>

#include "kernels/cpu/amx/backend.h"
#include "kernels/cpu/amx/linear.h"
#include "kernels/cpu/avx512/backend.h"
#include "kernels/fold_decode.h"
#include "kernels/linear_kernel.h"
#include "tests/kernels/linear_problem.h"
#include "tests/support/runner.h"

namespace mla::test {
namespace {

class AmxEmulated final : public kernels::HostBackend {
 public:
  std::string_view name() const override { return "amx_emulated"; }
  std::string why_unavailable() const override { return others().why_unavailable(); }

  std::int64_t workspace_bytes(const MlaShape& shape, std::int64_t chunk_tokens,
                               std::int64_t max_context_len) const override {
    std::int64_t bytes = 0;
    kernels::amx::lay_out(nullptr, shape,
                          kernels::fold_spill_floats(shape.d_v, chunk_tokens, max_context_len),
                          bytes);
    return std::max(bytes, others().workspace_bytes(shape, chunk_tokens, max_context_len));
  }

  void decode(const kernels::DecodeParams& params, Range chunks, float* nodes,
              std::span<std::byte> workspace) const noexcept override {
    if (params.kv.dtype != DType::kBf16) return others().decode(params, chunks, nodes, workspace);
    std::int64_t bytes = 0;
    decode_on_emulated_tiles(params, chunks, nodes,
                             kernels::amx::lay_out(workspace.data(), params.shape, 0, bytes));
  }

  const kernels::LinearKernel& linear_kernel() const override {
    static constexpr kernels::LinearKernel kKernel{
        .multiply =
            [](const kernels::LinearParams& layer, Range outputs,
               const std::byte* packed_x) noexcept {
              if (packed_x != nullptr) return multiply_on_emulated_tiles(layer, outputs, packed_x);
              others().linear_kernel().multiply(layer, outputs, nullptr);
            },
        .packs = [](WeightType type) noexcept { return type == WeightType::kBf16; },
        .panel_bytes = kernels::amx::linear_panel_bytes,
        .pack = kernels::amx::pack_linear};
    return kKernel;
  }

  std::string_view product_instruction(DType) const override { return {}; }
  double run_products(DType, std::int64_t) const noexcept override { return 0; }

 private:
  /// What "amx" leaves to it: fp16 caches.
  static const kernels::HostBackend& others() { return kernels::avx512::backend(); }
};

const AmxEmulated instance;
[[maybe_unused]] const bool added = add_backend(instance);

bool same_bits(const Nodes& a, const Nodes& b) {
  const std::int64_t padded = round_up(a.rows, 16);  // m and l have padding, which is anything
  const float* x = a.floats.data();
  const float* y = b.floats.data();
  const auto same = [&](std::int64_t begin, std::int64_t count) {
    return std::memcmp(x + begin, y + begin, static_cast<std::size_t>(count) * sizeof(float)) == 0;
  };
  return same(0, a.rows) && same(padded, a.rows) && same(2 * padded, a.rows * a.d_v);
}

// What the other tests say of the emulation then holds for the hardware, and the other way round.
TEST(EmulatedTiles, GiveTheBitsOfTheHardware) {
  const kernels::HostBackend& hardware = kernels::amx::backend();
  const std::string reason = hardware.why_unavailable();
  if (!reason.empty()) GTEST_SKIP() << reason;
  for (const std::int64_t heads : {1, 16, 40, 128}) {
    for (const double q_magnitude : {0.1, 1.0, 30.0}) {
      const Problem problem({.shape = {heads, 1, 576, 512},
                             .page_block_size = 100,
                             .requests = {{1, 700}},
                             .q_magnitude = q_magnitude,
                             .kv_magnitude = 1});
      const kernels::DecodeParams params = problem.params(0, 0, {0, heads});
      EXPECT_TRUE(same_bits(decode_whole(hardware, params), decode_whole(instance, params)))
          << heads << " heads, queries of magnitude " << q_magnitude;
    }
  }
}

TEST(EmulatedTiles, GiveTheBitsOfTheHardwareInLinearLayers) {
  const kernels::HostBackend& hardware = kernels::amx::backend();
  const std::string reason = hardware.why_unavailable();
  if (!reason.empty()) GTEST_SKIP() << reason;
  for (const std::int64_t rows : {1, 8, 9, 40}) {
    const LinearProblem problem({WeightType::kBf16, rows, 70, 333});
    std::vector<float> y[2];
    for (const kernels::HostBackend* backend :
         {&hardware, static_cast<const kernels::HostBackend*>(&instance)}) {
      kernels::LinearParams params = problem.params({0, rows}, {0, 70});
      std::vector<float>& to = y[backend == &instance];
      to.resize(rows * 70);
      params.y = to.data();
      params.y_stride = 70;
      const AlignedBytes workspace(kernels::linear_workspace_bytes(*backend, 333, rows, 1));
      kernels::linear(*backend, params, 2, workspace.span());
    }
    EXPECT_EQ(std::memcmp(y[0].data(), y[1].data(), y[0].size() * sizeof(float)), 0) << rows;
  }
}

}  // namespace
}  // namespace mla::test
