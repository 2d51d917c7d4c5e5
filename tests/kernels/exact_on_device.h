#pragma once

#include "kernels/cuda/runtime.h"
#include "kernels/reference/compare.h"
#include "tests/kernels/device_problem.h"

namespace mla::test {

/// What the fp64 oracle makes of a problem, computed on the GPU and left there.
class ExactOnDevice {
 public:
  explicit ExactOnDevice(const DeviceProblem& problem);

  /// What the last run on the problem left, against this; on the GPU, too.
  kernels::Comparison compare() const;

  ExactResults download() const;

 private:
  const DeviceProblem& problem_;
  kernels::cuda::DeviceBuffer out_;
  kernels::cuda::DeviceBuffer lse_;
};

}  // namespace mla::test
