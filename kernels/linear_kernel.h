#pragma once

#include <cstddef>
#include <cstdint>

#include "core/range.h"
#include "kernels/linear.h"

namespace mla::kernels {

/// Rows of x that a kernel packs together.
inline constexpr std::int64_t kLinearPanelRows = 8;

/// Most outputs of one call of a kernel.
inline constexpr std::int64_t kMostLinearOutputs = 64;

/// How one backend computes linear layers: functions, some of which live in files with ISA flags.
struct LinearKernel {
  /// y[., outputs) of a layer, where `outputs` are some of its own, at most kMostLinearOutputs, for
  /// all its rows.
  /// @param packed_x all panels of x; null if the kernel packs none for this layer
  void (*multiply)(const LinearParams& layer, Range outputs,
                   const std::byte* packed_x) noexcept = nullptr;

  /// Whether layers of this type are multiplied by packed x. Null: none is.
  bool (*packs)(WeightType type) noexcept = nullptr;
  /// Bytes of one packed panel, a multiple of 64.
  std::int64_t (*panel_bytes)(std::int64_t cols) noexcept = nullptr;
  /// Packs rows of x from `panel` * kLinearPanelRows on.
  void (*pack)(const LinearParams& layer, std::int64_t panel, std::byte* to) noexcept = nullptr;
};

}  // namespace mla::kernels
