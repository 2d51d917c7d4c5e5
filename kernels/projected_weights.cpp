#include "kernels/projected_weights.h"

#include <string>

#include "core/error.h"
#include "kernels/cpu/portable/projection.h"

namespace mla::kernels {
namespace {

void check_multiple_of_16(const char* field, std::int64_t value) {
  if (value > 0 && value % 16 == 0) return;
  throw InvalidArgument(field, std::to_string(value), "a positive multiple of 16");
}

void check(const HeadMatrices& w_uk, const HeadMatrices& w_uv) {
  check_multiple_of_16("d_nope", w_uk.d_in);
  check_multiple_of_16("d_latent", w_uk.d_out);
  check_multiple_of_16("d_v_head", w_uv.d_out);
  if (w_uv.d_in != w_uk.d_out) {
    throw InvalidArgument("rows of W_UV", std::to_string(w_uv.d_in),
                          "the columns of W_UK, " + std::to_string(w_uk.d_out));
  }
  if (w_uv.heads != w_uk.heads) {
    throw InvalidArgument("heads of W_UV", std::to_string(w_uv.heads),
                          "those of W_UK, " + std::to_string(w_uk.heads));
  }
  if (w_uv.dtype != w_uk.dtype || w_uk.dtype == DType::kFp32) {
    throw InvalidArgument("type of W_UV", name_of(w_uv.dtype),
                          "that of W_UK, bf16 or fp16 for both");
  }
}

}  // namespace

const ProjectionKernel& HostBackend::projection_kernel(DType dtype) const {
  return portable::projection_kernel(dtype);
}

HeadMatrices w_uk_of_kv_b_proj(const std::uint16_t* weight, DType dtype, std::int64_t heads,
                               std::int64_t d_nope, std::int64_t d_v_head, std::int64_t d_latent) {
  return {.data = weight,
          .dtype = dtype,
          .heads = heads,
          .d_in = d_nope,
          .d_out = d_latent,
          .head_stride = (d_nope + d_v_head) * d_latent,
          .in_stride = d_latent,
          .out_stride = 1};
}

HeadMatrices w_uv_of_kv_b_proj(const std::uint16_t* weight, DType dtype, std::int64_t heads,
                               std::int64_t d_nope, std::int64_t d_v_head, std::int64_t d_latent) {
  return {.data = weight + d_nope * d_latent,
          .dtype = dtype,
          .heads = heads,
          .d_in = d_latent,
          .d_out = d_v_head,
          .head_stride = (d_nope + d_v_head) * d_latent,
          .in_stride = 1,
          .out_stride = d_latent};
}

std::int64_t PackedProjections::packed_bytes(const HostBackend& backend, const HeadMatrices& w_uk,
                                             const HeadMatrices& w_uv) {
  check(w_uk, w_uv);
  const ProjectionKernel& kernel = backend.projection_kernel(w_uk.dtype);
  return w_uk.heads *
         (kernel.packed_bytes(w_uk.d_in, w_uk.d_out) + kernel.packed_bytes(w_uv.d_in, w_uv.d_out));
}

PackedProjections::PackedProjections(const HostBackend& backend, const HeadMatrices& w_uk,
                                     const HeadMatrices& w_uv)
    : PackedProjections(
          backend, w_uk, w_uv,
          AlignedBuffer<std::byte>(static_cast<std::size_t>(packed_bytes(backend, w_uk, w_uv)))) {}

PackedProjections::PackedProjections(const HostBackend& backend, const HeadMatrices& w_uk,
                                     const HeadMatrices& w_uv, AlignedBuffer<std::byte> memory)
    : PackedProjections(backend, w_uk, w_uv, memory.span()) {
  owned_ = std::move(memory);
}

PackedProjections::PackedProjections(const HostBackend& backend, const HeadMatrices& w_uk,
                                     const HeadMatrices& w_uv, std::span<std::byte> memory)
    : kernel_(backend.projection_kernel(w_uk.dtype)),
      dtype_(w_uk.dtype),
      heads_(w_uk.heads),
      d_nope_(w_uk.d_in),
      d_latent_(w_uk.d_out),
      d_v_head_(w_uv.d_out),
      uk_bytes_(kernel_.packed_bytes(d_nope_, d_latent_)),
      uv_bytes_(kernel_.packed_bytes(d_latent_, d_v_head_)),
      packed_(memory.data()) {
  check(w_uk, w_uv);
  std::byte* const uk = memory.data();
  std::byte* const uv = uk + heads_ * uk_bytes_;
#pragma omp parallel for
  for (std::int64_t head = 0; head < heads_; ++head) {
    kernel_.pack(w_uk, head, uk + head * uk_bytes_);
    kernel_.pack(w_uv, head, uv + head * uv_bytes_);
  }
}

}  // namespace mla::kernels
