#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "core/dtype.h"
#include "core/partial.h"

namespace mla::kernels {

/// One matrix per head, [heads, d_in, d_out], not owned: element (h, i, o) lies at
/// `data[h * head_stride + i * in_stride + o * out_stride]`. Elements are the bit patterns of
/// `dtype`, bf16 or fp16.
struct HeadMatrices {
  const std::uint16_t* data = nullptr;
  DType dtype = DType::kBf16;
  std::int64_t heads = 0;
  std::int64_t d_in = 0;
  std::int64_t d_out = 0;
  std::int64_t head_stride = 0;
  std::int64_t in_stride = 0;
  std::int64_t out_stride = 0;
};

/// Most rows of one HeadProduct.
inline constexpr std::int64_t kMaxProductRows = 64;

/// y = x W for some rows and the matrix of one head. Every element of y is one sum over the
/// elements of its row of x in order, in fp32, then rounded to the type of y; so a row's bits do
/// not depend on the other rows.
struct HeadProduct {
  std::span<const std::byte> packed;  ///< W [d_in, d_out], as `pack` left it
  std::int64_t d_in = 0;
  std::int64_t d_out = 0;
  std::int64_t rows = 0;  ///< at most kMaxProductRows

  const void* x = nullptr;  ///< [rows, d_in], of the kernel's 16-bit type or fp32
  DType x_dtype = DType::kBf16;
  std::int64_t x_stride = 0;  ///< elements between rows
  void* y = nullptr;          ///< [rows, d_out], likewise
  DType y_dtype = DType::kBf16;
  std::int64_t y_stride = 0;

  std::span<const std::byte> next;  ///< what is read after W; may be prefetched, is never read
};

/// How one backend multiplies by the per-head matrices W_UK and W_UV of a model, which it wants in
/// a layout of its own. Made for one 16-bit type. Stateless, thread-safe; allocates nothing.
class ProjectionKernel {
 public:
  ProjectionKernel() = default;
  ProjectionKernel(const ProjectionKernel&) = delete;
  ProjectionKernel& operator=(const ProjectionKernel&) = delete;
  virtual ~ProjectionKernel() = default;

  /// The layout of one packed matrix, for people.
  virtual std::string_view layout() const = 0;
  /// Bytes of one packed matrix, a multiple of 64. d_in is even, d_out a multiple of 16.
  virtual std::int64_t packed_bytes(std::int64_t d_in, std::int64_t d_out) const = 0;
  /// Packs the matrix of `head` into `to`, aligned to 64 bytes.
  virtual void pack(const HeadMatrices& matrices, std::int64_t head,
                    std::byte* to) const noexcept = 0;

  /// Bytes of scratch, aligned to 64 bytes, that `multiply` needs.
  virtual std::int64_t workspace_bytes(std::int64_t d_in) const = 0;
  virtual void multiply(const HeadProduct& product,
                        std::span<std::byte> workspace) const noexcept = 0;

  /// y[row][d_v] = o / l, rounded to the kernel's type; zeros for a row that saw no key.
  /// @param y_stride elements between rows, at least d_v
  virtual void normalise(const PartialView& partial, std::uint16_t* y,
                         std::int64_t y_stride) const noexcept = 0;
};

}  // namespace mla::kernels
