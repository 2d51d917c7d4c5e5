#include "launch/bench/softmax.h"

#include <algorithm>
#include <cstring>
#include <limits>

#include "core/every_cpu.h"

namespace mla::launch::bench {
namespace {

constexpr int kLanes = 16;
using Floats [[gnu::vector_size(64)]] = float;
using Ints [[gnu::vector_size(64)]] = std::int32_t;
using Halves [[gnu::vector_size(32)]] = std::uint16_t;

/// x = 2^x for -126 <= x <= 0: a Taylor polynomial of degree 6 around the nearest integer, good to
/// 2e-7, and the integer added to the exponent.
[[gnu::always_inline]] inline void raise_two_to(Floats& x) {
  constexpr float kRound = 12582912;  // 1.5 * 2^23: its last place is 1
  const Floats shifted = x + kRound;
  const Floats f = x - (shifted - kRound);
  Floats p = 1.5403530e-4F * f + 1.3333558e-3F;
  p = p * f + 9.6181291e-3F;
  p = p * f + 5.5504109e-2F;
  p = p * f + 0.24022651F;
  p = p * f + 0.69314718F;
  p = p * f + 1.0F;
  Ints exponent;
  Ints bits;
  std::memcpy(&exponent, &shifted, sizeof exponent);
  std::memcpy(&bits, &p, sizeof bits);
  bits += exponent << 23;
  std::memcpy(&x, &bits, sizeof x);
}

[[gnu::always_inline]] inline void store_bf16(const Floats& x, std::uint16_t* to) {
  Ints bits;
  std::memcpy(&bits, &x, sizeof bits);
  bits += 0x7fff + (bits >> 16 & 1);
  const Halves halves = __builtin_convertvector(bits >> 16, Halves);
  std::memcpy(to, &halves, sizeof halves);
}

}  // namespace

// A baseline is not to lose by what is around its library calls.
MLA_FOR_EVERY_CPU
SoftmaxSums softmax_weights(float* scores, std::int64_t count, float scale_log2,
                            std::uint16_t* halves) {
  Floats maxima = Floats{} - std::numeric_limits<float>::infinity();
  for (std::int64_t i = 0; i < count; i += kLanes) {
    Floats s;
    std::memcpy(&s, scores + i, sizeof s);
    maxima = s > maxima ? s : maxima;
  }
  float max = maxima[0];
  for (int lane = 1; lane < kLanes; ++lane) max = std::max(max, maxima[lane]);

  constexpr float kLeast = -126;
  Floats sums{};
  for (std::int64_t i = 0; i < count; i += kLanes) {
    Floats x;
    std::memcpy(&x, scores + i, sizeof x);
    x = (x - max) * scale_log2;
    x = x > kLeast ? x : Floats{} + kLeast;
    raise_two_to(x);
    sums += x;
    if (halves != nullptr) {
      store_bf16(x, halves + i);
    } else {
      std::memcpy(scores + i, &x, sizeof x);
    }
  }
  float sum = 0;
  for (int lane = 0; lane < kLanes; ++lane) sum += sums[lane];
  return {max, sum};
}

}  // namespace mla::launch::bench
