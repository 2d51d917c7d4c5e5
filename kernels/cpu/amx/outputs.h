#pragma once

#include <cstdint>
#include <cstring>

#include <immintrin.h>

#include "core/partial.h"
#include "kernels/cpu/amx/scratch.h"

// Included only by files compiled for AMX and AVX-512; forced inline, so that no copy of it can be
// linked into code for other CPUs.

namespace mla::kernels::amx {

/// The outputs of a chunk, of which whole groups can be loaded and stored as tiles: the rows of a
/// last group of less than 16 lie apart until the chunk is done.
class Outputs {
 public:
  [[gnu::always_inline]] Outputs(const Scratch& s, const PartialView& result)
      : result_(result), last_(s.last_rows), whole_(result.rows / kLanes * kLanes) {}

  [[gnu::always_inline]] std::int64_t d_v() const { return result_.d_v; }
  [[gnu::always_inline]] float* row(std::int64_t row) const {
    return row < whole_ ? result_.o + row * d_v() : last_ + (row - whole_) * d_v();
  }
  /// o <- factor * o for a row.
  [[gnu::always_inline]] void scale(std::int64_t row, float factor) const {
    float* o = this->row(row);
    for (std::int64_t i = 0; i < d_v(); i += kLanes) {
      _mm512_storeu_ps(o + i, _mm512_mul_ps(_mm512_loadu_ps(o + i), _mm512_set1_ps(factor)));
    }
  }
  [[gnu::always_inline]] void finish() const {
    std::memcpy(result_.o + whole_ * d_v(), last_,
                static_cast<std::size_t>((result_.rows - whole_) * d_v()) * sizeof(float));
  }

 private:
  const PartialView& result_;
  float* const last_;
  const std::int64_t whole_;
};

}  // namespace mla::kernels::amx
