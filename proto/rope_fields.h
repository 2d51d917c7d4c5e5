#pragma once

#include "core/model_config.h"
#include "proto/json_fields.h"

namespace mla::proto {

/// What a family says about its rotary embedding beside config.json.
struct RopeRules {
  double default_theta = 10000;
  std::int64_t rotated_of = 0;    ///< what partial_rotary_factor is a part of
  bool scales_positions = false;  ///< YaRN with llama_4_scaling_beta
};

/// Reads rope_scaling or rope_parameters and what belongs to them, once the sizes of the attention
/// and max_position are known: sets `config.rope` but for `interleaved`, multiplies the softmax
/// scale by YaRN's m^2, and sets the position scale.
void read_rope(Fields& fields, const RopeRules& rules, ModelConfig& config);

}  // namespace mla::proto
