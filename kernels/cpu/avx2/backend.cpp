#include "kernels/cpu/avx2/backend.h"

#include "kernels/cpu/cpu_backend.h"

#ifdef MLA_HAVE_AVX2
#include "kernels/cpu/avx2/decode.h"
#include "kernels/cpu/avx2/linear.h"
#endif

namespace mla::kernels::avx2 {
namespace {

#ifdef MLA_HAVE_AVX2

/// Half-precision conversions come with every AVX2; clang 14 cannot ask for them.
std::string missing_feature() {
  __builtin_cpu_init();
  const bool all = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  return all ? std::string{} : "the CPU lacks AVX2 or FMA";
}

constexpr cpu::CpuKernel kKernel{decode, "vfmadd231ps ymm", run_products};
constexpr cpu::CpuKernels kKernels{"avx2", missing_feature, kKernel, kKernel, {multiply_linear}};

#else

std::string not_compiled() {
  return "this build has no AVX2 code (another target, or a compiler that cannot)";
}
constexpr cpu::CpuKernels kKernels{"avx2", not_compiled, {}, {}};

#endif

}  // namespace

const HostBackend& backend() {
  static const cpu::CpuBackend instance(kKernels);
  return instance;
}

}  // namespace mla::kernels::avx2
