#include "kernels/cuda/limit_kernels.h"

#include <cuda_runtime.h>

namespace mla::kernels::cuda {
namespace {

constexpr int kThreads = 512;
constexpr int kBlocksPerMultiprocessor = 4;
constexpr int kLoads = 4;    // of 16 bytes in flight at a time, in each thread
constexpr int kChains = 8;   // of FMAs that do not wait for one another
constexpr int kUnrolled = 64;

int blocks_of_this_device() {
  int device = 0;
  int multiprocessors = 0;
  cudaGetDevice(&device);
  cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device);
  return kBlocksPerMultiprocessor * multiprocessors;
}

__global__ void __launch_bounds__(kThreads) read(const uint4* data, std::int64_t count,
                                                 float* sink) {
  unsigned sum = 0;
  const std::int64_t stride = std::int64_t{gridDim.x} * kThreads;
  std::int64_t i = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  for (; i + (kLoads - 1) * stride < count; i += kLoads * stride) {
    uint4 loaded[kLoads];
#pragma unroll
    for (int j = 0; j < kLoads; ++j) loaded[j] = __ldcs(data + i + j * stride);
#pragma unroll
    for (int j = 0; j < kLoads; ++j) {
      sum ^= loaded[j].x ^ loaded[j].y ^ loaded[j].z ^ loaded[j].w;
    }
  }
  for (; i < count; i += stride) {
    const uint4 loaded = __ldcs(data + i);
    sum ^= loaded.x ^ loaded.y ^ loaded.z ^ loaded.w;
  }
  if (sum == 0x12345678) *sink = 1;
}

__global__ void __launch_bounds__(kThreads) multiply(std::int64_t steps, float factor,
                                                     float* sink) {
  float sums[kChains];
#pragma unroll
  for (int i = 0; i < kChains; ++i) sums[i] = static_cast<float>(threadIdx.x + i);
  const float addend = static_cast<float>(threadIdx.x) * 0.01F;
  for (std::int64_t step = 0; step < steps; ++step) {
#pragma unroll
    for (int j = 0; j < kUnrolled; ++j) {
#pragma unroll
      for (int i = 0; i < kChains; ++i) sums[i] = fmaf(sums[i], factor, addend);
    }
  }
  float total = 0;
#pragma unroll
  for (int i = 0; i < kChains; ++i) total += sums[i];
  if (total == -1.5F) *sink = total;
}

}  // namespace

ErrorCode enqueue_read(const std::byte* data, std::int64_t bytes, float* sink,
                       StreamHandle stream) {
  constexpr std::int64_t kLoadBytes = 16;
  read<<<blocks_of_this_device(), kThreads, 0, stream>>>(reinterpret_cast<const uint4*>(data),
                                                         bytes / kLoadBytes, sink);
  return cudaGetLastError();
}

ErrorCode enqueue_fp32_products(double flops, double& done, float* sink, StreamHandle stream) {
  const int blocks = blocks_of_this_device();
  const double flops_per_step = 2.0 * blocks * kThreads * kUnrolled * kChains;
  const auto steps = static_cast<std::int64_t>(flops / flops_per_step) + 1;
  done = static_cast<double>(steps) * flops_per_step;
  multiply<<<blocks, kThreads, 0, stream>>>(steps, 0.999F, sink);
  return cudaGetLastError();
}

}  // namespace mla::kernels::cuda
