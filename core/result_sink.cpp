#include "core/result_sink.h"

#include <algorithm>
#include <cstring>

#include "core/every_cpu.h"

namespace mla {

MLA_FOR_EVERY_CPU
void store_out_row(const PartialView& root, std::int64_t row, DType dtype, std::byte* out) {
  constexpr std::int64_t kBlock = 256;  // elements converted at a time
  float values[kBlock];
  std::uint16_t halves[kBlock];
  for (std::int64_t d = 0; d < root.d_v; d += kBlock) {
    const std::int64_t count = std::min(kBlock, root.d_v - d);
    finalize_out(root, row, {d, d + count}, values);
    if (dtype == DType::kFp32) {
      std::memcpy(out + d * 4, values, count * sizeof *values);
      continue;
    }
    if (dtype == DType::kBf16) {
      for (std::int64_t i = 0; i < count; ++i) halves[i] = to_bf16(values[i]).bits;
    } else {
      for (std::int64_t i = 0; i < count; ++i) halves[i] = to_fp16(values[i]).bits;
    }
    std::memcpy(out + d * 2, halves, count * sizeof *halves);
  }
}

}  // namespace mla
