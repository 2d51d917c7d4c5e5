#include "kernels/cpu/avx512/backend.h"

#include "kernels/cpu/cpu_backend.h"

#ifdef MLA_HAVE_AVX512
#include "kernels/cpu/avx512/decode.h"
#include "kernels/cpu/avx512/linear.h"
#include "kernels/cpu/avx512/project.h"
#endif

namespace mla::kernels::avx512 {
namespace {

#ifdef MLA_HAVE_AVX512

/// FMA and half-precision conversions come with every AVX-512.
std::string missing_for_fp32() {
  __builtin_cpu_init();
  if (!__builtin_cpu_supports("avx512f")) return "the CPU lacks AVX-512";
  const bool basics = __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
                      __builtin_cpu_supports("avx512vl");
  return basics ? std::string{} : "the CPU lacks AVX512-BW, -DQ or -VL";
}

std::string missing_for_bf16() {
  const std::string missing = missing_for_fp32();
  if (!missing.empty()) return missing;
  return __builtin_cpu_supports("avx512bf16") ? std::string{} : "the CPU lacks AVX512-BF16";
}

constexpr cpu::CpuKernel kBf16Kernel{decode_bf16, "vdpbf16ps zmm", run_bf16_products,
                                     bf16_projection_kernel};
constexpr cpu::CpuKernel kFp32Kernel{decode_fp32, "vfmadd231ps zmm", run_fp32_products};

constexpr LinearKernel kLinear{multiply_linear};

constexpr cpu::CpuKernels kBf16{"avx512", missing_for_bf16, kBf16Kernel, kFp32Kernel, kLinear};
constexpr cpu::CpuKernels kFp32{"avx512-fp32", missing_for_fp32, kFp32Kernel, kFp32Kernel, kLinear};

#else

std::string not_compiled() {
  return "this build has no AVX-512 code (another target, or a compiler that cannot)";
}
constexpr cpu::CpuKernels kBf16{"avx512", not_compiled, {}, {}};
constexpr cpu::CpuKernels kFp32{"avx512-fp32", not_compiled, {}, {}};

#endif

}  // namespace

const HostBackend& backend() {
  static const cpu::CpuBackend instance(kBf16);
  return instance;
}

const HostBackend& fp32_backend() {
  static const cpu::CpuBackend instance(kFp32);
  return instance;
}

}  // namespace mla::kernels::avx512
