#pragma once

namespace mla::bench {

/// Multiplications and additions of one core on 128-bit vectors of floats, not fused: what code
/// for any CPU of this architecture can reach. GFLOP/s.
double peak_portable_fp32();

/// Fused multiply-adds of one core on 512-bit vectors of floats. Needs AVX-512. GFLOP/s.
double peak_avx512_fma();

/// Dot products of bf16 pairs (vdpbf16ps) on 512-bit vectors. Needs AVX512-BF16. GFLOP/s.
double peak_avx512_bf16();

}  // namespace mla::bench
