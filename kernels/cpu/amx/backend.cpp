#include "kernels/cpu/amx/backend.h"

#include <cstdlib>

#ifdef MLA_HAVE_AMX
#include <algorithm>
#include <cerrno>
#include <cstring>

#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "kernels/cpu/amx/decode.h"
#include "kernels/cpu/amx/linear.h"
#include "kernels/cpu/avx512/backend.h"
#include "kernels/cpu/avx512/linear.h"
#include "kernels/fold_decode.h"
#endif

namespace mla::kernels::amx {
namespace {

#ifdef MLA_HAVE_AMX

/// Whether the CPU has AMX-TILE and AMX-BF16.
bool cpu_has_tiles() {
  constexpr unsigned kAmxBf16 = 1U << 22;
  constexpr unsigned kAmxTile = 1U << 24;
  unsigned eax = 0;
  unsigned ebx = 0;
  unsigned ecx = 0;
  unsigned edx = 0;
  if (__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) == 0) return false;
  return (edx & kAmxBf16) != 0 && (edx & kAmxTile) != 0;
}

/// Whether the system saves tiles when it switches threads (XCR0: tile configuration and data).
bool system_saves_tiles() {
  constexpr unsigned kOsXsave = 1U << 27;
  constexpr unsigned kTileState = 3U << 17;
  unsigned eax = 0;
  unsigned ebx = 0;
  unsigned ecx = 0;
  unsigned edx = 0;
  if (__get_cpuid(1, &eax, &ebx, &ecx, &edx) == 0 || (ecx & kOsXsave) == 0) return false;
  asm volatile("xgetbv" : "=a"(eax), "=d"(edx) : "c"(0));
  return (eax & kTileState) == kTileState;
}

/// Asks Linux for the use of tiles by this process, all its threads included.
std::string request_tiles() {
  constexpr long kRequestPermission = 0x1023;  // ARCH_REQ_XCOMP_PERM
  constexpr long kTileData = 18;               // XFEATURE_XTILEDATA
  if (syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0) return {};
  return std::string("the system refuses this process the use of AMX tiles (") +
         std::strerror(errno) + ")";
}

std::string find_what_is_missing() {
  const std::string reason = avx512::backend().why_unavailable();
  if (!reason.empty()) return reason;
  if (!cpu_has_tiles()) return "the CPU lacks AMX-BF16";
  if (!system_saves_tiles()) return "the system does not enable AMX";
  return request_tiles();
}

bool packs_linear(WeightType type) noexcept {
  return type == WeightType::kBf16;
}

void multiply_linear(const LinearParams& layer, Range outputs, const std::byte* packed) noexcept {
  if (packs_linear(layer.weights.type)) return multiply_linear_bf16(layer, outputs, packed);
  avx512::multiply_linear(layer, outputs, packed);
}

constexpr LinearKernel kLinear{.multiply = multiply_linear,
                               .packs = packs_linear,
                               .panel_bytes = linear_panel_bytes,
                               .pack = pack_linear};

class Amx final : public HostBackend {
 public:
  std::string_view name() const override { return "amx"; }
  std::string why_unavailable() const override {
    static const std::string reason = find_what_is_missing();
    return reason;
  }

  std::int64_t workspace_bytes(const MlaShape& shape, std::int64_t chunk_tokens,
                               std::int64_t max_context_len) const override {
    std::int64_t bytes = 0;
    lay_out(nullptr, shape, fold_spill_floats(shape.d_v, chunk_tokens, max_context_len), bytes);
    return std::max(bytes, avx512::backend().workspace_bytes(shape, chunk_tokens, max_context_len));
  }

  void decode(const DecodeParams& params, Range chunks, float* nodes,
              std::span<std::byte> workspace) const noexcept override {
    if (params.kv.dtype != DType::kBf16) {
      return avx512::backend().decode(params, chunks, nodes, workspace);
    }
    std::int64_t bytes = 0;
    decode_bf16(params, chunks, nodes, lay_out(workspace.data(), params.shape, 0, bytes));
  }

  const ProjectionKernel& projection_kernel(DType dtype) const override {
    return avx512::backend().projection_kernel(dtype);
  }
  const LinearKernel& linear_kernel() const override { return kLinear; }

  std::string_view product_instruction(DType dtype) const override {
    return dtype == DType::kBf16 ? "tdpbf16ps" : avx512::backend().product_instruction(dtype);
  }
  double run_products(DType dtype, std::int64_t count) const noexcept override {
    return dtype == DType::kBf16 ? amx::run_products(count)
                                 : avx512::backend().run_products(dtype, count);
  }
};

#else

/// Stands in where the compiler or the target cannot do AMX.
class Amx final : public HostBackend {
 public:
  std::string_view name() const override { return "amx"; }
  std::string why_unavailable() const override {
    return "this build has no AMX-BF16 code (another target, or a compiler that cannot)";
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

const HostBackend& backend() {
  static const Amx instance;
  return instance;
}

}  // namespace mla::kernels::amx
