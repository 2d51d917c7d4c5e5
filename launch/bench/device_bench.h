#pragma once

#include <memory>
#include <string>

#include "kernels/backend.h"
#include "launch/bench/contender.h"
#include "launch/bench/limits.h"
#include "launch/bench/pool.h"

namespace mla::launch::bench {

/// What a bench needs of the GPU: a copy of the pool in its memory, contenders that decode out of
/// it, and its limits.
///
/// A contender's repeat is one replay of a graph of at least 8 decodes, which read other pages each
/// out of those of the pool in random order, the same ones if hot; timed by the GPU's own events.
/// The seconds of a repeat are those of one decode.
class DeviceBench {
 public:
  DeviceBench() = default;
  DeviceBench(const DeviceBench&) = delete;
  DeviceBench& operator=(const DeviceBench&) = delete;
  virtual ~DeviceBench() = default;

  virtual std::string gpu_name() const = 0;

  /// Copies the pool anew, when it has been filled.
  virtual void upload_pool() = 0;

  /// The decode of `workload`, which must outlive it, along the canonical tree if `exact`.
  /// @throws Unsupported if the backend cannot do that
  virtual std::unique_ptr<Contender> make_contender(const Workload& workload,
                                                    const kernels::Backend& backend,
                                                    bool exact) = 0;

  virtual DeviceLimit measure_limit(const kernels::Backend& backend, DType dtype) = 0;
};

/// Works with the first GPU. `pool` must outlive it.
/// @throws NotCompiled in a build without CUDA, CudaError
std::unique_ptr<DeviceBench> make_device_bench(const Pool& pool, bool hot);

}  // namespace mla::launch::bench
