#pragma once

#include <cstdint>
#include <vector>

#include "kernels/backend.h"

namespace mla::test {

/// Attention in fp64, and what the theory of its rounding errors needs to know.
struct ExactAttention {
  std::vector<double> out;          ///< [rows, d_v]
  std::vector<double> lse;          ///< [rows]
  std::vector<double> abs_out;      ///< [rows, d_v] sum of weight * |value|
  std::vector<double> n_eff;        ///< [rows] 1 / sum of squared weights: how many keys count
  std::vector<double> score_bound;  ///< [rows] scale * |q| * max |k|, above every |score|
};

/// Softmax of `params.rows` over all keys in fp64, on all OpenMP threads. Needs query_len == 1.
ExactAttention exact_attention(const kernels::DecodeParams& params);

/// Where a straightforward implementation rounds.
enum class PlainPrecision : std::uint8_t {
  kFp32,   ///< nowhere but in fp32 arithmetic
  kCache,  ///< the normalised weights to the cache's type, too
};

struct FloatAttention {
  std::vector<float> out;  ///< [rows, d_v]
  std::vector<float> lse;  ///< [rows]
};

/// A straightforward implementation: all scores of a row in fp32, their maximum, weights, and one
/// running fp32 sum for l and for each output, from the first key to the last. Needs query_len
/// == 1.
FloatAttention plain_attention(const kernels::DecodeParams& params, PlainPrecision precision);

}  // namespace mla::test
