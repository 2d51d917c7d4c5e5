#pragma once

// All that the portable GPU code uses of a vendor's toolkit, under names of our own: CUDA, HIP
// (AMD) and MUSA (Moore Threads) differ in little else. Kernels are launched with <<<>>>, which all
// three compilers know, as they do __global__, __device__, __shared__, __syncthreads and blockIdx.

#include <cstdint>

#if defined(__HIPCC__)
#include <hip/hip_fp16.h>
#include <hip/hip_runtime.h>
#define MLA_GPU(name) hip##name
#elif defined(__MUSACC__)
#include <musa_fp16.h>
#include <musa_runtime.h>
#define MLA_GPU(name) musa##name
#else
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#define MLA_GPU(name) cuda##name
#endif

/// Marks a kernel's parameter that is read where it lies, by reference too.
#if defined(__HIPCC__) || defined(__MUSACC__)
#define MLA_GRID_CONSTANT
#else
#define MLA_GRID_CONSTANT __grid_constant__
#endif

namespace mla::kernels::cuda::gpu {

using Stream = MLA_GPU(Stream_t);
using Error = MLA_GPU(Error_t);

// What the tiles are chosen for; see DeviceProfile.
#if defined(__HIPCC__)
inline constexpr int kWarpLanes = 64;
inline constexpr int kRegistersPerThread = 256;
inline constexpr std::int64_t kRegistersPerMultiprocessor = 128 * 1024;
#elif defined(__MUSACC__)
inline constexpr int kWarpLanes = 32;
inline constexpr int kRegistersPerThread = 168;
inline constexpr std::int64_t kRegistersPerMultiprocessor = 64 * 1024;
#else
inline constexpr int kWarpLanes = 32;
inline constexpr int kRegistersPerThread = 255;
inline constexpr std::int64_t kRegistersPerMultiprocessor = 64 * 1024;
#endif

inline Error last_error() {
  return MLA_GPU(GetLastError)();
}

/// The value that the lane `lane ^ mask` has, among `width` lanes side by side (a power of two, at
/// most 32). All lanes of the warp must call it.
template <class T>
__device__ __forceinline__ T shuffle_xor(T value, int mask, int width) {
#if defined(__HIPCC__)
  return __shfl_xor(value, mask, width);
#else
  return __shfl_xor_sync(0xffffffffU, value, mask, width);
#endif
}

/// Reads what other blocks of the same launch may have written, past any cache that is not
/// coherent.
__device__ __forceinline__ float load_fresh(const float* from) {
#if defined(__HIPCC__)
  return __builtin_nontemporal_load(from);
#else
  return __ldcg(from);
#endif
}
__device__ __forceinline__ float4 load_fresh(const float4* from) {
#if defined(__HIPCC__)
  return {load_fresh(&from->x), load_fresh(&from->y), load_fresh(&from->z), load_fresh(&from->w)};
#else
  return __ldcg(from);
#endif
}

/// Asks for a cache line that will be read soon.
__device__ __forceinline__ void prefetch(const void* address) {
#if defined(__CUDACC__)
  asm volatile("prefetch.global.L2 [%0];" ::"l"(address));
#else
  __builtin_prefetch(address);
#endif
}

// Roundings by name, so that no compiler fuses them.
__device__ __forceinline__ float add(float a, float b) {
  return __fadd_rn(a, b);
}
__device__ __forceinline__ float mul(float a, float b) {
  return __fmul_rn(a, b);
}
__device__ __forceinline__ float div(float a, float b) {
  return __fdiv_rn(a, b);
}
__device__ __forceinline__ float fma(float a, float b, float c) {
  return __fmaf_rn(a, b, c);
}

/// Hides from the compiler what `value` is, so that nothing that depends on it is computed earlier
/// and kept in registers.
__device__ __forceinline__ void forget(std::uint32_t& value) {
#if defined(__HIPCC__)
  asm volatile("" : "+v"(value));
#else
  asm volatile("" : "+r"(value));
#endif
}

/// 2^x within two units of the last place; 0 for -inf.
__device__ __forceinline__ float exp2(float x) {
  return ::exp2f(x);
}

/// The two fp16 numbers in a word, low half first.
__device__ __forceinline__ float2 widen_fp16(std::uint32_t pair) {
  return {__half2float(__ushort_as_half(static_cast<unsigned short>(pair))),
          __half2float(__ushort_as_half(static_cast<unsigned short>(pair >> 16)))};
}

}  // namespace mla::kernels::cuda::gpu
