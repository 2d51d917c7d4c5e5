#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "core/aligned_buffer.h"
#include "kernels/backend.h"
#include "kernels/projected_kernel.h"

namespace mla::kernels {

/// W_UK [heads, d_nope, d_latent] as a view of Hugging Face's kv_b_proj.weight
/// [heads * (d_nope + d_v_head), d_latent].
HeadMatrices w_uk_of_kv_b_proj(const std::uint16_t* weight, DType dtype, std::int64_t heads,
                               std::int64_t d_nope, std::int64_t d_v_head, std::int64_t d_latent);
/// Likewise W_UV [heads, d_latent, d_v_head].
HeadMatrices w_uv_of_kv_b_proj(const std::uint16_t* weight, DType dtype, std::int64_t heads,
                               std::int64_t d_nope, std::int64_t d_v_head, std::int64_t d_latent);

/// W_UK and W_UV of a layer, or of some of its heads, packed for one backend once and for all.
class PackedProjections {
 public:
  /// Packs into memory of its own. The views are not needed afterwards. Uses OpenMP threads.
  /// @throws InvalidArgument unless heads, d_latent and types agree, and every width is a multiple
  ///         of 16
  PackedProjections(const HostBackend& backend, const HeadMatrices& w_uk, const HeadMatrices& w_uv);
  /// Packs into `memory`, aligned to 64 bytes and of `packed_bytes`, which must outlive the object.
  PackedProjections(const HostBackend& backend, const HeadMatrices& w_uk, const HeadMatrices& w_uv,
                    std::span<std::byte> memory);

  static std::int64_t packed_bytes(const HostBackend& backend, const HeadMatrices& w_uk,
                                   const HeadMatrices& w_uv);

  const ProjectionKernel& kernel() const { return kernel_; }
  DType dtype() const { return dtype_; }
  std::int64_t heads() const { return heads_; }
  std::int64_t d_nope() const { return d_nope_; }
  std::int64_t d_latent() const { return d_latent_; }
  std::int64_t d_v_head() const { return d_v_head_; }

  /// The packed matrices of some heads, one after the other.
  std::span<const std::byte> w_uk(Range heads) const {
    return {packed_ + heads.begin * uk_bytes_, static_cast<std::size_t>(heads.size() * uk_bytes_)};
  }
  std::span<const std::byte> w_uv(Range heads) const {
    return {packed_ + heads_ * uk_bytes_ + heads.begin * uv_bytes_,
            static_cast<std::size_t>(heads.size() * uv_bytes_)};
  }

 private:
  PackedProjections(const HostBackend& backend, const HeadMatrices& w_uk, const HeadMatrices& w_uv,
                    AlignedBuffer<std::byte> memory);

  AlignedBuffer<std::byte> owned_;
  const ProjectionKernel& kernel_;
  DType dtype_;
  std::int64_t heads_;
  std::int64_t d_nope_;
  std::int64_t d_latent_;
  std::int64_t d_v_head_;
  std::int64_t uk_bytes_;  ///< of one head
  std::int64_t uv_bytes_;
  const std::byte* packed_;  ///< W_UK of all heads, then W_UV of all heads
};

}  // namespace mla::kernels
