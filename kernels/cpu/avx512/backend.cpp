#include "kernels/cpu/avx512/backend.h"

#include "kernels/cpu/cpu_backend.h"

#ifdef MLA_HAVE_AVX512
#include "kernels/cpu/avx512/decode.h"
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

constexpr cpu::CpuKernels kBf16{.name = "avx512",
                                .why_unavailable = missing_for_bf16,
                                .decode_bf16 = decode_bf16,
                                .decode_fp16 = decode_fp32};
constexpr cpu::CpuKernels kFp32{.name = "avx512-fp32",
                                .why_unavailable = missing_for_fp32,
                                .decode_bf16 = decode_fp32,
                                .decode_fp16 = decode_fp32};

#else

std::string not_compiled() {
  return "this build has no AVX-512 code (another target, or a compiler that cannot)";
}
constexpr cpu::CpuKernels kBf16{.name = "avx512", .why_unavailable = not_compiled};
constexpr cpu::CpuKernels kFp32{.name = "avx512-fp32", .why_unavailable = not_compiled};

#endif

}  // namespace

const Backend& backend() {
  static const cpu::CpuBackend instance(kBf16);
  return instance;
}

const Backend& fp32_backend() {
  static const cpu::CpuBackend instance(kFp32);
  return instance;
}

}  // namespace mla::kernels::avx512
