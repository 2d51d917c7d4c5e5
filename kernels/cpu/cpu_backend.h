#pragma once

#include <string>
#include <string_view>

#include "kernels/backend.h"
#include "kernels/cpu/scratch.h"

namespace mla::kernels::cpu {

/// `Backend::decode` of one scheme; lives in a file with ISA flags.
using DecodeFunction = void (*)(const DecodeParams& params, Range chunks, float* nodes,
                                const Scratch& scratch) noexcept;

/// What tells the CPU backends apart. The functions of a backend that this build lacks are null,
/// and `why_unavailable` says so.
struct CpuKernels {
  std::string_view name;
  std::string (*why_unavailable)() = nullptr;
  DecodeFunction decode_bf16 = nullptr;
  DecodeFunction decode_fp16 = nullptr;
};

/// A backend made of functions that work in a `Scratch`.
class CpuBackend final : public Backend {
 public:
  explicit CpuBackend(const CpuKernels& kernels) : kernels_(kernels) {}

  std::string_view name() const override { return kernels_.name; }
  std::string why_unavailable() const override { return kernels_.why_unavailable(); }
  std::int64_t workspace_bytes(const MlaShape& shape, std::int64_t chunk_tokens,
                               std::int64_t max_context_len) const override;
  void decode(const DecodeParams& params, Range chunks, float* nodes,
              std::span<std::byte> workspace) const noexcept override;

 private:
  CpuKernels kernels_;
};

}  // namespace mla::kernels::cpu
