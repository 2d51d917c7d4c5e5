#pragma once

#include <string>
#include <string_view>

#include "kernels/backend.h"
#include "kernels/cpu/scratch.h"
#include "kernels/linear_kernel.h"

namespace mla::kernels::cpu {

/// How a backend deals with caches of one element type; the functions live in files with ISA flags.
struct CpuKernel {
  /// `HostBackend::decode` in laid out scratch.
  void (*decode)(const DecodeParams& params, Range chunks, float* nodes,
                 const Scratch& scratch) noexcept = nullptr;
  std::string_view product_instruction;
  double (*run_products)(std::int64_t count) noexcept = nullptr;
  const ProjectionKernel& (*projection)() = nullptr;  ///< null: the one every backend has
};

/// What tells the CPU backends apart. A backend that this build lacks has no kernels, and
/// `why_unavailable` says so.
struct CpuKernels {
  std::string_view name;
  std::string (*why_unavailable)() = nullptr;
  CpuKernel bf16;
  CpuKernel fp16;
  LinearKernel linear;  ///< empty: the one every backend has
};

/// A backend made of functions that work in a `Scratch`.
class CpuBackend final : public HostBackend {
 public:
  explicit CpuBackend(const CpuKernels& kernels) : kernels_(kernels) {}

  std::string_view name() const override { return kernels_.name; }
  std::string why_unavailable() const override { return kernels_.why_unavailable(); }
  std::int64_t workspace_bytes(const MlaShape& shape, std::int64_t chunk_tokens,
                               std::int64_t max_context_len) const override;
  void decode(const DecodeParams& params, Range chunks, float* nodes,
              std::span<std::byte> workspace) const noexcept override;
  const ProjectionKernel& projection_kernel(DType dtype) const override {
    const auto own = kernel(dtype).projection;
    return own != nullptr ? own() : HostBackend::projection_kernel(dtype);
  }
  const LinearKernel& linear_kernel() const override {
    return kernels_.linear.multiply != nullptr ? kernels_.linear : HostBackend::linear_kernel();
  }
  std::string_view product_instruction(DType dtype) const override {
    return kernel(dtype).product_instruction;
  }
  double run_products(DType dtype, std::int64_t count) const noexcept override {
    return kernel(dtype).run_products(count);
  }

 private:
  const CpuKernel& kernel(DType dtype) const {
    return dtype == DType::kBf16 ? kernels_.bf16 : kernels_.fp16;
  }

  CpuKernels kernels_;
};

}  // namespace mla::kernels::cpu
