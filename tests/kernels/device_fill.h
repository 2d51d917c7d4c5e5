#pragma once

#include "core/kv_view.h"
#include "kernels/cuda/device_kernel.h"
#include "tests/support/problem.h"

namespace mla::test {

/// The cache of a problem in a GPU's memory.
struct CacheToFill {
  std::uint16_t* data = nullptr;      ///< [num_pages, page_stride]
  const PageTokens* pages = nullptr;  ///< [num_pages], on the GPU too
  std::int64_t num_pages = 0;
  KvView strides;
  std::int64_t h_kv = 1;
  std::int64_t d_qk = 0;
};

/// The queries likewise.
struct QueriesToFill {
  std::uint16_t* data = nullptr;  ///< [rows, row_stride]
  std::int64_t rows = 0;
  std::int64_t row_stride = 0;
  std::int64_t d_qk = 0;
};

/// Write what Problem has there on the host, NaN around it included. Return a cudaError_t.
kernels::cuda::ErrorCode launch_fill(const CacheToFill& cache, const RandomRows& random,
                                     kernels::cuda::StreamHandle stream);
kernels::cuda::ErrorCode launch_fill(const QueriesToFill& queries, const RandomRows& random,
                                     kernels::cuda::StreamHandle stream);

}  // namespace mla::test
