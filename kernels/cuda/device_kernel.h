#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "kernels/cuda/decode_args.h"
#include "kernels/cuda/device_plan.h"

struct CUstream_st;

namespace mla::kernels::cuda {

/// cudaStream_t, and cudaError_t as a number, for headers that know no CUDA.
using StreamHandle = CUstream_st*;
using ErrorCode = int;

/// What kernels ask about a GPU.
struct DeviceInfo {
  int compute_capability = 0;  ///< 90 for Hopper
  int multiprocessors = 0;
  std::int64_t shared_bytes_per_block = 0;  ///< at most, opted in
};

/// A GPU kernel for the decode operator. Stateless; all calls are thread-safe.
class DeviceKernel {
 public:
  DeviceKernel() = default;
  DeviceKernel(const DeviceKernel&) = delete;
  DeviceKernel& operator=(const DeviceKernel&) = delete;
  virtual ~DeviceKernel() = default;

  virtual std::string_view name() const = 0;

  /// Why it cannot run `args` (sizes, strides, alignment), as a clause; empty if it can. Looks at
  /// no pointer's target.
  virtual std::string why_unsupported(const DecodeArgs& args) const = 0;

  /// How to cut `items` for `device`. With `sizes.exact` what a row's chunk comes to must not
  /// depend on the answer.
  virtual KernelGeometry geometry(std::span<const DeviceItem> items, const PlanSizes& sizes,
                                  const DeviceInfo& device) const = 0;

  /// Enqueues one run of a plan of `geometry` on `stream`. Allocates nothing, synchronises nothing,
  /// may be captured into a graph. `args` must be supported. Runs that share partials and counters
  /// must follow one another. Returns a cudaError_t.
  virtual ErrorCode launch(const DecodeArgs& args, const KernelGeometry& geometry,
                           StreamHandle stream) const = 0;
};

}  // namespace mla::kernels::cuda
