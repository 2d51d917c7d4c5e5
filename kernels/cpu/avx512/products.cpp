#include <immintrin.h>

#include "kernels/cpu/avx512/decode.h"
#include "kernels/product_loop.h"

namespace mla::kernels::avx512 {

double run_bf16_products(std::int64_t count) noexcept {
  return product_loop<24>(count, 64, _mm512_setzero_ps(), _mm512_set1_epi32(0x3f803f80),
                          [](__m512 sum, __m512i ones) {
                            return _mm512_dpbf16_ps(sum, reinterpret_cast<__m512bh>(ones),
                                                    reinterpret_cast<__m512bh>(ones));
                          });
}

double run_fp32_products(std::int64_t count) noexcept {
  return product_loop<24>(count, 32, _mm512_setzero_ps(), _mm512_set1_ps(1),
                          [](__m512 sum, __m512 ones) { return _mm512_fmadd_ps(ones, ones, sum); });
}

}  // namespace mla::kernels::avx512
