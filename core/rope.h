#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/model_config.h"

namespace mla {

/// theta^(-2i / dim) for the pairs i of a vector of `dim` elements, which is even: rotary embedding
/// (Su et al. 2021). All functions here round to fp32 where Hugging Face's transformers do, so that
/// angles at late positions agree.
std::vector<float> default_inverse_frequencies(double theta, std::int64_t dim);

/// What a config says about YaRN (Peng et al. 2023).
struct YarnConfig {
  double factor = 1;
  double original_max_position = 1;
  double beta_fast = 32;
  double beta_slow = 1;
  bool truncate = true;  ///< the ends of the ramp are rounded outwards
};

/// Fast pairs keep their frequency, slow ones turn `factor` times slower, with a ramp between.
std::vector<float> yarn_inverse_frequencies(double theta, std::int64_t dim, const YarnConfig& yarn);

/// 0.1 mscale ln(factor) + 1, or 1 for a factor of at most 1: YaRN's m.
double yarn_mscale(double factor, double mscale);

/// LongRoPE (Ding et al. 2024): 1 / (factors[i] theta^(2i / dim)). `factors` has dim / 2 elements.
std::vector<float> longrope_inverse_frequencies(double theta, std::int64_t dim,
                                                std::span<const double> factors);

/// LongRoPE's attention factor for contexts `factor` times the original length.
double longrope_attention_factor(double factor, double original_max_position);

/// The frequencies of a job whose longest context has `longest` tokens.
std::span<const float> inverse_frequencies(const RopeConfig& rope, std::int64_t longest);

/// What q at a position is multiplied by: 1 but for models with `position_scale_beta`.
float position_scale(const AttentionConfig& attention, std::int64_t position);

}  // namespace mla
