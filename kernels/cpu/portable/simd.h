#pragma once

#include <cstdint>
#include <cstring>

#include "core/dtype.h"

namespace mla::kernels::portable {

/// The vector types of that many bytes. GCC 12 cannot derive them from a template's argument.
template <int kBytes>
struct VectorTypes;
template <>
struct VectorTypes<16> {
  using Floats [[gnu::vector_size(16)]] = float;
  using Ints [[gnu::vector_size(16)]] = std::int32_t;
  using Words [[gnu::vector_size(16)]] = std::uint32_t;
  using Halves [[gnu::vector_size(8)]] = std::uint16_t;
  using Bytes [[gnu::vector_size(4)]] = std::uint8_t;
};
template <>
struct VectorTypes<32> {
  using Floats [[gnu::vector_size(32)]] = float;
  using Ints [[gnu::vector_size(32)]] = std::int32_t;
  using Words [[gnu::vector_size(32)]] = std::uint32_t;
  using Halves [[gnu::vector_size(16)]] = std::uint16_t;
  using Bytes [[gnu::vector_size(8)]] = std::uint8_t;
};
template <>
struct VectorTypes<64> {
  using Floats [[gnu::vector_size(64)]] = float;
  using Ints [[gnu::vector_size(64)]] = std::int32_t;
  using Words [[gnu::vector_size(64)]] = std::uint32_t;
  using Halves [[gnu::vector_size(32)]] = std::uint16_t;
  using Bytes [[gnu::vector_size(16)]] = std::uint8_t;
};

/// Vectors of kBytes bytes without intrinsics, for the templates of kernels/cpu: on any target the
/// compiler splits or emulates what the CPU lacks.
template <int kBytes>
struct Simd {
  using Vector = typename VectorTypes<kBytes>::Floats;
  using Mask = typename VectorTypes<kBytes>::Ints;  ///< -1 or 0 in each lane
  static constexpr int kLanes = kBytes / 4;

  [[gnu::always_inline]] static Vector load(const float* from) {
    Vector v;
    std::memcpy(&v, from, sizeof v);
    return v;
  }
  [[gnu::always_inline]] static void store(float* to, Vector v) { std::memcpy(to, &v, sizeof v); }
  [[gnu::always_inline]] static Vector broadcast(float x) { return x - Vector{}; }
  /// Not fused: without such an instruction that would be a call for each lane.
  [[gnu::always_inline]] static Vector fma(Vector a, Vector b, Vector c) { return a * b + c; }
  /// a where either is NaN.
  [[gnu::always_inline]] static Vector max(Vector a, Vector b) { return a < b ? b : a; }
  [[gnu::always_inline]] static Mask less(Vector a, Vector b) { return a < b; }
  [[gnu::always_inline]] static Mask equal(Vector a, Vector b) { return a == b; }
  [[gnu::always_inline]] static Vector select(Mask mask, Vector yes, Vector no) {
    return mask ? yes : no;
  }
  /// The nearest integer, for |x| < 2^22: adding kRounder leaves it in the last bits.
  [[gnu::always_inline]] static Vector round(Vector x) { return (x + kRounder) - kRounder; }
  /// p * 2^n for whole n of [-126, 0]; anything for others.
  [[gnu::always_inline]] static Vector scale(Vector p, Vector n) {
    const Bits exponent = bits_of(n + kRounder) - bits_of(broadcast(kRounder)) + 127U;
    return p * floats_of(exponent << 23);
  }
  [[gnu::always_inline]] static Vector from_int(const std::int32_t* from) {
    Mask numbers;
    std::memcpy(&numbers, from, sizeof numbers);
    return __builtin_convertvector(numbers, Vector);
  }
  template <DType kDType>
  [[gnu::always_inline]] static Vector widen(const std::uint16_t* from) {
    if constexpr (kDType == DType::kFp32) {
      Vector floats;
      std::memcpy(&floats, from, sizeof floats);
      return floats;
    }
    Halves halves;
    std::memcpy(&halves, from, sizeof halves);
    const Bits bits = __builtin_convertvector(halves, Bits);
    if constexpr (kDType == DType::kBf16) return floats_of(bits << 16);
    return widen_fp16(bits);
  }
  [[gnu::always_inline]] static Vector widen_e4m3(const std::uint8_t* from) {
    Bytes bytes;
    std::memcpy(&bytes, from, sizeof bytes);
    const Bits bits = __builtin_convertvector(bytes, Bits);
    // Exponent and mantissa at their places in a float are a number 2^120 too small.
    const Bits magnitude = bits & 0x7fU;
    const Bits scaled = bits_of(floats_of(magnitude << 20) * 0x1p120F);
    const Bits special = magnitude == 0x7fU ? Bits{} + 0x7fc00000U : Bits{};
    return floats_of(scaled | special | (bits & 0x80U) << 24);
  }
  /// sums[i] = the sum of the lanes of v[i], in a fixed tree.
  [[gnu::always_inline]] static void add_lanes(const Vector (&v)[4], float (&sums)[4]) {
    for (int i = 0; i < 4; ++i) {
      float lanes[kLanes];
      store(lanes, v[i]);
      for (int half = kLanes / 2; half > 0; half /= 2) {
        for (int j = 0; j < half; ++j) lanes[j] += lanes[j + half];
      }
      sums[i] = lanes[0];
    }
  }

 private:
  using Bits = typename VectorTypes<kBytes>::Words;
  using Halves = typename VectorTypes<kBytes>::Halves;
  using Bytes = typename VectorTypes<kBytes>::Bytes;
  static constexpr float kRounder = 0x1.8p23F;

  [[gnu::always_inline]] static Bits bits_of(Vector v) { return reinterpret_cast<Bits>(v); }
  [[gnu::always_inline]] static Vector floats_of(Bits bits) {
    return reinterpret_cast<Vector>(bits);
  }

  /// The half's exponent and mantissa, moved to their places in a float, are a number 2^112 too
  /// small; multiplying is exact, for subnormals too. Infinity and NaN get their exponent back.
  [[gnu::always_inline]] static Vector widen_fp16(Bits bits) {
    const Bits magnitude = bits & 0x7fffU;
    const Bits scaled = bits_of(floats_of(magnitude << 13) * 0x1p112F);
    const Bits special = magnitude >= 0x7c00U ? Bits{} + 0x7f800000U : Bits{};
    return floats_of(scaled | special | (bits & 0x8000U) << 16);
  }
};

}  // namespace mla::kernels::portable
