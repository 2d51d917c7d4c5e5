#pragma once

#include <type_traits>

#include <cuda.h>

#include "kernels/cuda/device_kernel.h"

namespace mla::kernels::cuda::sm90 {

/// A kernel whose blocks have 64 query rows each, for some type and size of cache rows.
struct RowBlockChoice {
  void (*kernel)(DecodeArgs, CUtensorMap, int box_tokens, int blocks_per_team) = nullptr;
  int threads = 0;
  int shared_bytes = 0;
};

/// What such kernels have in common on the host: what they take, and how they are launched.
class RowBlockKernel : public DeviceKernel {
 public:
  std::string why_unsupported(const DecodeArgs& args) const override;
  ErrorCode launch(const DecodeArgs& args, const KernelGeometry& geometry,
                   StreamHandle stream) const override;

 private:
  /// No kernel if there is none for these sizes.
  virtual RowBlockChoice choose(const DecodeArgs& args) const = 0;
};

/// `of(bf16, slabs)` for the template arguments that `args` need, as integral constants.
template <class Of>
RowBlockChoice choose_row_block(const DecodeArgs& args, Of of) {
  const auto of_type = [&](auto slabs) {
    return args.bf16 ? of(std::true_type{}, slabs) : of(std::false_type{}, slabs);
  };
  const auto takes = [&args](int d_qk, int d_v) {
    return args.d_v == d_v && args.d_qk > d_v && args.d_qk <= d_qk;
  };
  if (takes(576, 512)) return of_type(std::integral_constant<int, 9>{});
  if (takes(320, 256)) return of_type(std::integral_constant<int, 5>{});
  return {};
}

}  // namespace mla::kernels::cuda::sm90
