#pragma once

#include <cstdint>

/// Before a function's definition: compiled for the newer levels of x86-64 too, and the best that
/// the CPU can run is chosen when the program starts. The results have the same bits, as long as no
/// multiplication is fused with an addition. Compilers and C libraries that cannot do it compile
/// the function once.
#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__) && \
    defined(__OPTIMIZE__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define MLA_FOR_EVERY_CPU [[gnu::target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")]]
#else
#define MLA_FOR_EVERY_CPU
#endif
