#pragma once

/// Marks what GPU compilers build for the device too. Nothing elsewhere.
#if defined(__CUDACC__) || defined(__HIPCC__) || defined(__MUSACC__)
#define MLA_HOST_DEVICE __host__ __device__
#else
#define MLA_HOST_DEVICE
#endif
