#include "core/partial.h"

#include <algorithm>

#include "core/every_cpu.h"

namespace mla {

void clear_partial(const PartialView& partial) {
  std::fill_n(partial.m_log2, partial.rows, kEmptyM);
  std::fill_n(partial.l, partial.rows, 0.0F);
  std::fill_n(partial.o, partial.rows * partial.d_v, 0.0F);
}

MLA_FOR_EVERY_CPU
void merge_here(const PartialView& into, const PartialView& from) {
  merge_partials(into, from);
}

MLA_FOR_EVERY_CPU
void finalize_out(const PartialView& partial, std::int64_t row, Range dims, float* out) {
  if (partial.m_log2[row] == kEmptyM) {
    std::fill_n(out, dims.size(), 0.0F);
    return;
  }
  const float* o = partial.o + row * partial.d_v;
  const float l = partial.l[row];
  for (std::int64_t d = dims.begin; d < dims.end; ++d) out[d - dims.begin] = o[d] / l;
}

float finalize_lse(const PartialView& partial, std::int64_t row) {
  return lse_exact(partial.m_log2[row], partial.l[row]);
}

}  // namespace mla
