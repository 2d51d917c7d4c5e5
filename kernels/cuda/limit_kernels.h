#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/cuda/device_kernel.h"

/// Work that is nothing but what limits a GPU, to measure the limit with. All functions enqueue on
/// `stream`, use the whole current GPU and return a cudaError_t. `sink` is a float in device memory
/// that keeps the compiler from leaving work out.
namespace mla::kernels::cuda {

/// Reads `bytes`, a multiple of 16, of device memory once.
ErrorCode enqueue_read(const std::byte* data, std::int64_t bytes, float* sink, StreamHandle stream);

/// About `flops` floating-point operations, `done` in fact, as fp32 FMAs on registers.
ErrorCode enqueue_fp32_products(double flops, double& done, float* sink, StreamHandle stream);

/// The same as products of tensor cores (wgmma 64x256x16) of random bf16 or fp16 numbers in shared
/// memory: chips clock lower on random numbers than on zeros. Hopper only.
ErrorCode enqueue_tensor_products(bool bf16, double flops, double& done, float* sink,
                                  StreamHandle stream);

}  // namespace mla::kernels::cuda
