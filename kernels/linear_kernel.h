#pragma once

#include <cstddef>
#include <cstdint>

#include "core/range.h"
#include "kernels/linear.h"

namespace mla::kernels {

/// How one backend computes linear layers: functions that live in files with ISA flags.
struct LinearKernel {
  /// y[., outputs) of a layer, where `outputs` are some of its own.
  /// @param packed_x what `pack` made of all rows of x; null if it packs nothing
  void (*multiply)(const LinearParams& layer, Range outputs, const std::byte* packed_x) noexcept;

  /// Bytes of x, packed, a multiple of 64. Null where x is read as it lies.
  std::int64_t (*packed_bytes)(std::int64_t rows, std::int64_t cols) = nullptr;
  /// Whether layers of this type are multiplied by packed x.
  bool (*packs)(WeightType type) = nullptr;
  /// Packs the panel `panel` of the rows of x, kPanelRows of them, to its place in `packed_x`.
  void (*pack)(const LinearParams& layer, std::int64_t panel, std::byte* packed_x) noexcept =
      nullptr;
};

}  // namespace mla::kernels
