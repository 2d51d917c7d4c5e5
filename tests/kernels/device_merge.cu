#include "kernels/cuda/merge.cuh"
#include "tests/kernels/device_merge.h"

namespace mla::test {
namespace {

using namespace kernels::cuda;

__global__ void __launch_bounds__(kMaxMergeThreads) merge_together(DecodeArgs args, int index) {
  __shared__ float4 shared[kMergeSharedBytes / sizeof(float4)];
  const int thread = static_cast<int>(threadIdx.x);
  const Merge merge = args.merges[index];
  arrive_at_merge(args, index, thread);
  wait_for_parts(args, index, gridDim.x, thread);
  merge_slice(args, merge, static_cast<int>(blockIdx.x), thread, static_cast<int>(blockDim.x),
              shared);
  finish_merge(args, index, merge.blocks, thread);
}

__global__ void compute_exact_math(const float* x, int n, float* powers, float* logarithms) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i >= n) return;
  powers[i] = exp2_exact(x[i]);
  logarithms[i] = lse_exact(x[i], -x[i]);
}

}  // namespace

ErrorCode launch_merge(const DecodeArgs& args, int index, int blocks, int threads,
                       StreamHandle stream) {
  DecodeArgs copy = args;
  void* parameters[] = {&copy, &index};
  return cudaLaunchCooperativeKernel(reinterpret_cast<const void*>(&merge_together), blocks,
                                     threads, parameters, 0, stream);
}

ErrorCode launch_exact_math(const float* x, int n, float* powers, float* logarithms,
                            StreamHandle stream) {
  compute_exact_math<<<(n + 255) / 256, 256, 0, stream>>>(x, n, powers, logarithms);
  return cudaGetLastError();
}

}  // namespace mla::test
