#include "kernels/cpu/avx2/backend.h"

#include "kernels/cpu/cpu_backend.h"

#ifdef MLA_HAVE_AVX2
#include "kernels/cpu/avx2/decode.h"
#endif

namespace mla::kernels::avx2 {
namespace {

#ifdef MLA_HAVE_AVX2

std::string missing_feature() {
  __builtin_cpu_init();
  const bool all = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                   __builtin_cpu_supports("f16c");
  return all ? std::string{} : "the CPU lacks AVX2, FMA or F16C";
}

constexpr cpu::CpuKernels kKernels{.name = "avx2",
                                   .why_unavailable = missing_feature,
                                   .decode_bf16 = decode,
                                   .decode_fp16 = decode};

#else

std::string not_compiled() {
  return "this build has no AVX2 code (another target, or a compiler that cannot)";
}
constexpr cpu::CpuKernels kKernels{.name = "avx2", .why_unavailable = not_compiled};

#endif

}  // namespace

const Backend& backend() {
  static const cpu::CpuBackend instance(kKernels);
  return instance;
}

}  // namespace mla::kernels::avx2
