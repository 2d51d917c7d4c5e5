#include "core/result_sink.h"

#include <algorithm>
#include <cstring>

#include "core/every_cpu.h"

namespace mla {
namespace {

/// round(o / l) for each o of a row, one after the other at `out`.
template <class Round>
[[gnu::always_inline]] inline void store_quotients(const float* o, float l, std::int64_t count,
                                                   Round round, std::byte* out) {
  for (std::int64_t d = 0; d < count; ++d) {
    const auto value = round(o[d] / l);
    std::memcpy(out + d * static_cast<std::int64_t>(sizeof value), &value, sizeof value);
  }
}

}  // namespace

MLA_FOR_EVERY_CPU
void store_out_row(const PartialView& root, std::int64_t row, DType dtype, std::byte* out) {
  if (root.m_log2[row] == kEmptyM) {
    std::fill_n(out, root.d_v * size_of(dtype), std::byte{0});
    return;
  }
  const float* o = root.o + row * root.d_v;
  const float l = root.l[row];
  if (dtype == DType::kFp32) {
    store_quotients(
        o, l, root.d_v, [](float x) { return x; }, out);
  } else if (dtype == DType::kBf16) {
    store_quotients(
        o, l, root.d_v, [](float x) { return to_bf16(x).bits; }, out);
  } else {
    store_quotients(
        o, l, root.d_v, [](float x) { return to_fp16(x).bits; }, out);
  }
}

}  // namespace mla
