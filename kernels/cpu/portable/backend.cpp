#include "kernels/cpu/portable/backend.h"

#include "kernels/cpu/cpu_backend.h"
#include "kernels/cpu/portable/decode.h"

namespace mla::kernels::portable {
namespace {

constexpr cpu::CpuKernels kKernels{.name = "portable",
                                   .why_unavailable = [] { return std::string{}; },
                                   .decode_bf16 = decode,
                                   .decode_fp16 = decode};

}  // namespace

const Backend& backend() {
  static const cpu::CpuBackend instance(kKernels);
  return instance;
}

}  // namespace mla::kernels::portable
