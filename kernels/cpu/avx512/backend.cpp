#include "kernels/cpu/avx512/backend.h"

#include <cstdlib>

#ifdef MLA_HAVE_AVX512
#include "kernels/cpu/avx512/decode.h"
#include "kernels/cpu/avx512/project.h"
#include "kernels/fold_decode.h"
#endif

namespace mla::kernels::avx512 {
namespace {

#ifdef MLA_HAVE_AVX512

/// FMA and half-precision conversions come with every AVX-512.
std::string missing_feature() {
  __builtin_cpu_init();
  if (!__builtin_cpu_supports("avx512f")) return "the CPU lacks AVX-512";
  const bool basics = __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
                      __builtin_cpu_supports("avx512vl");
  if (!basics) return "the CPU lacks AVX512-BW, -DQ or -VL";
  if (!__builtin_cpu_supports("avx512bf16")) return "the CPU lacks AVX512-BF16";
  return {};
}

class Avx512 final : public Backend {
 public:
  std::string_view name() const override { return "avx512"; }
  std::string why_unavailable() const override { return missing_feature(); }

  std::int64_t workspace_bytes(const MlaShape& shape, std::int64_t chunk_tokens,
                               std::int64_t max_context_len) const override {
    std::int64_t bytes = 0;
    lay_out(nullptr, shape, fold_spill_floats(shape.d_v, chunk_tokens, max_context_len), bytes);
    return bytes;
  }

  void decode(const DecodeParams& params, Range chunks, float* nodes,
              std::span<std::byte> workspace) const noexcept override {
    std::int64_t bytes = 0;
    const Scratch scratch = lay_out(workspace.data(), params.shape, 0, bytes);
    if (params.kv.dtype == DType::kBf16) {
      decode_bf16(params, chunks, nodes, scratch);
    } else {
      decode_fp16(params, chunks, nodes, scratch);
    }
  }

  const ProjectionKernel& projection_kernel(DType dtype) const override {
    return dtype == DType::kBf16 ? bf16_projection_kernel() : Backend::projection_kernel(dtype);
  }

  std::string_view product_instruction(DType dtype) const override {
    return dtype == DType::kBf16 ? "vdpbf16ps zmm" : "vfmadd231ps zmm";
  }
  double run_products(DType dtype, std::int64_t count) const noexcept override {
    return dtype == DType::kBf16 ? run_bf16_products(count) : run_fp32_products(count);
  }
};

#else

/// Stands in where the compiler or the target cannot do AVX-512.
class Avx512 final : public Backend {
 public:
  std::string_view name() const override { return "avx512"; }
  std::string why_unavailable() const override {
    return "this build has no AVX512-BF16 code (another target, or a compiler that cannot)";
  }
  std::int64_t workspace_bytes(const MlaShape&, std::int64_t, std::int64_t) const override {
    return 0;
  }
  void decode(const DecodeParams&, Range, float*, std::span<std::byte>) const noexcept override {
    std::abort();  // find_backend never hands out a backend that is unavailable
  }
  std::string_view product_instruction(DType) const override { return {}; }
  double run_products(DType, std::int64_t) const noexcept override { return 0; }
};

#endif

}  // namespace

const Backend& backend() {
  static const Avx512 instance;
  return instance;
}

}  // namespace mla::kernels::avx512
