#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "kernels/cuda/kernel_list.h"
#include "kernels/cuda/plan_memory.h"
#include "kernels/cuda/runtime.h"

namespace mla::kernels::cuda {

/// A plan for some items on the current GPU, its tables and partials in memory of its own: all that
/// one launch of a kernel needs but the tensors.
class DeviceLaunch {
 public:
  /// Plans `items` for the first of `kernels` that is meant for them and can run `args`, and
  /// enqueues the upload of the tables on `stream`. May be called again, once what the plan before
  /// was run for is done; keeps the memory where that is large enough.
  /// @param args the tensors, the sizes and the types
  /// @throws Unsupported, InvalidArgument as `choose_kernel` and `make_device_plan` do, CudaError
  void replan(std::string_view backend, const KernelList& kernels,
              std::span<const DeviceItem> items, std::int64_t chunk_tokens, const DecodeArgs& args,
              const Stream& stream);

  const DeviceKernel& kernel() const { return *kernel_; }
  const DevicePlan& plan() const { return plan_; }
  const DecodeArgs& args() const { return args_; }

  /// Enqueues one run of what was planned. Allocates nothing; may be captured.
  void run(const Stream& stream) const {
    check_cuda(kernel_->launch(args_, plan_.geometry, stream.get()), kernel_->name());
  }

 private:
  DecodeArgs args_{};
  const DeviceKernel* kernel_ = nullptr;
  DevicePlan plan_;
  PinnedBuffer tables_;
  DeviceBuffer memory_;
};

}  // namespace mla::kernels::cuda
