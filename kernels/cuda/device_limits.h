#pragma once

#include <cstdint>
#include <string_view>

#include "core/dtype.h"
#include "kernels/cuda/runtime.h"

namespace mla::kernels::cuda {

/// How fast a GPU multiplies at most with what a backend uses.
struct ProductRate {
  std::string_view instruction;  ///< "wgmma 64x256x16 out of shared memory"
  double flops_per_second = 0;
};

/// The best of some attempts of about 5 ms each on the current GPU, for a GPU backend by its name.
ProductRate measure_products(std::string_view backend, DType dtype, const Stream& stream);

/// Bytes per second: the best of some passes over `data`, which must be several times as large as
/// the GPU's caches.
double measure_reads(const DeviceBuffer& data, const Stream& stream);

}  // namespace mla::kernels::cuda
