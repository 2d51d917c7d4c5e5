#include "kernels/rotary.h"

#include "core/exact_math.h"

namespace mla::kernels {
namespace {

using namespace exact_math;

struct CosSin {
  double cosine;
  double sine;
};

/// Method: angle = n pi/2 + f, |f| <= pi/4, with pi/2 in three parts of which the first two have 33
/// bits, so that their products with n < 2^20 are exact; then Taylor's series in f.
CosSin cos_sin(double angle) {
  constexpr double kTwoOverPi = 0x1.45f306dc9c883p-1;
  constexpr double kPart1 = 0x1.921fb544p+0;
  constexpr double kPart2 = 0x1.0b4611a6p-34;
  constexpr double kPart3 = 0x1.3198a2e037073p-69;
  constexpr double kToInteger = 0x1.8p52;
  const double shifted = add(mul(angle, kTwoOverPi), kToInteger);
  const double n = sub(shifted, kToInteger);
  const double f = sub(sub(sub(angle, mul(n, kPart1)), mul(n, kPart2)), mul(n, kPart3));
  const double z = mul(f, f);

  constexpr double kCosine[] = {-1.0 / 87178291200, 1.0 / 479001600, -1.0 / 3628800, 1.0 / 40320,
                                -1.0 / 720,         1.0 / 24,        -1.0 / 2,       1.0};
  constexpr double kSine[] = {-1.0 / 1307674368000, 1.0 / 6227020800, -1.0 / 39916800, 1.0 / 362880,
                              -1.0 / 5040,          1.0 / 120,        -1.0 / 6,        1.0};
  double cosine = 0;
  for (const double c : kCosine) cosine = line(c, cosine, z);
  double sine = 0;
  for (const double c : kSine) sine = line(c, sine, z);
  sine = mul(sine, f);

  switch ((bits_of(shifted) - bits_of(kToInteger)) & 3) {
    case 0:
      return {cosine, sine};
    case 1:
      return {-sine, cosine};
    case 2:
      return {-cosine, -sine};
    default:
      return {sine, -cosine};
  }
}

}  // namespace

void rotary_angles(std::span<const float> inv_freq, float factor, std::int64_t position,
                   float* cosines, float* sines) noexcept {
  for (std::size_t i = 0; i < inv_freq.size(); ++i) {
    const CosSin at = cos_sin(static_cast<double>(static_cast<float>(position) * inv_freq[i]));
    cosines[i] = static_cast<float>(at.cosine) * factor;
    sines[i] = static_cast<float>(at.sine) * factor;
  }
}

void rotate(std::span<const float> cosines, const float* sines, bool interleaved,
            float* x) noexcept {
  const std::size_t pairs = cosines.size();
  for (std::size_t i = 0; i < pairs; ++i) {
    float& first = interleaved ? x[2 * i] : x[i];
    float& second = interleaved ? x[2 * i + 1] : x[i + pairs];
    const float a = first;
    const float b = second;
    first = a * cosines[i] - b * sines[i];
    second = b * cosines[i] + a * sines[i];
  }
}

}  // namespace mla::kernels
