#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "core/model_weights.h"
#include "core/range.h"
#include "kernels/backend.h"

// Linear layers, y = x W^T in fp32 with weights of any type. An element y[i, r] is one sum over the
// columns in an order that the backend, the weights' type and their number fix. So its bits do not
// depend on which other elements are computed, by whom, or where anything lies in memory.

namespace mla::kernels {

/// Some outputs of one layer for some rows. Plain data; nothing is owned, and y overlaps nothing.
struct LinearParams {
  MatrixView weights;
  Range outputs;  ///< the rows of `weights` to multiply by

  std::int64_t rows = 0;
  const float* x = nullptr;   ///< [rows, weights.cols]
  std::int64_t x_stride = 0;  ///< elements between rows
  float* y = nullptr;         ///< [rows, outputs.size()]
  std::int64_t y_stride = 0;
};

/// Bytes of scratch for `linear` on layers of at most `max_cols` columns, `max_layers` at a time,
/// with at most `max_rows` rows in all.
std::int64_t linear_workspace_bytes(const HostBackend& backend, std::int64_t max_cols,
                                    std::int64_t max_rows, std::int64_t max_layers);

/// Computes the layers on `threads` OpenMP threads of its own, which share them as if they were
/// one: say the experts that have work, or all layers that read the same rows. Layers that follow
/// one another and read the same x are cheapest. Allocates nothing.
/// Weights that are not finite spoil their own outputs alone, a row of x its own row of y.
/// @param workspace aligned to 64 bytes and no smaller than `linear_workspace_bytes`
void linear(const HostBackend& backend, std::span<const LinearParams> layers, int threads,
            std::span<std::byte> workspace) noexcept;

/// One layer.
inline void linear(const HostBackend& backend, const LinearParams& layer, int threads,
                   std::span<std::byte> workspace) noexcept {
  linear(backend, std::span(&layer, 1), threads, workspace);
}

}  // namespace mla::kernels
