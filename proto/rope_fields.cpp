#include "proto/rope_fields.h"

#include <string>

#include "core/rope.h"

namespace mla::proto {
namespace {

constexpr double kMostPositions = 1e9;
constexpr double kMostFactor = 1e6;

struct RopeBase {
  double theta = 0;
  double original_max_position = 0;
};

void read_yarn(Fields& rope, const RopeBase& base, ModelConfig& config) {
  YarnConfig yarn;
  yarn.factor = rope["factor"].number(1, kMostFactor);
  yarn.original_max_position = base.original_max_position;
  yarn.beta_fast = rope["beta_fast"].number_or(yarn.beta_fast, 1e-3, kMostFactor);
  yarn.beta_slow = rope["beta_slow"].number_or(yarn.beta_slow, 1e-3, kMostFactor);
  yarn.truncate = rope["truncate"].boolean_or(true);
  config.rope.inv_freq =
      yarn_inverse_frequencies(base.theta, config.attention.qk_rope_head_dim, yarn);

  const double mscale = rope["mscale"].number_or(0, 0, 100);
  const double mscale_all_dim = rope["mscale_all_dim"].number_or(0, 0, 100);
  const bool both = mscale != 0 && mscale_all_dim != 0;
  const double usual =
      both ? yarn_mscale(yarn.factor, mscale) / yarn_mscale(yarn.factor, mscale_all_dim)
           : yarn_mscale(yarn.factor, 1);
  config.rope.attention_factor =
      static_cast<float>(rope["attention_factor"].number_or(usual, 0, 100));
  if (mscale_all_dim != 0) {
    const double m = yarn_mscale(yarn.factor, mscale_all_dim);
    config.attention.softmax_scale *= m * m;
  }
}

/// `count` factors of frequencies.
std::vector<double> read_factors(const JsonField& field, std::size_t count) {
  if (field.size() != count) field.expected("an array of " + std::to_string(count) + " numbers");
  std::vector<double> factors;
  for (std::size_t i = 0; i < count; ++i) {
    factors.push_back(field.at(i).number(1e-3, kMostFactor));
  }
  return factors;
}

void read_longrope(Fields& rope, const RopeBase& base, ModelConfig& config) {
  const std::int64_t dim = config.attention.qk_rope_head_dim;
  const auto pairs = static_cast<std::size_t>(dim / 2);
  const double original = base.original_max_position;
  const double factor =
      rope["factor"].number_or(static_cast<double>(config.max_position) / original, 0, kMostFactor);
  config.rope.attention_factor = static_cast<float>(
      rope["attention_factor"].number_or(longrope_attention_factor(factor, original), 0, 100));
  config.rope.inv_freq =
      longrope_inverse_frequencies(base.theta, dim, read_factors(rope["short_factor"], pairs));
  config.rope.long_inv_freq =
      longrope_inverse_frequencies(base.theta, dim, read_factors(rope["long_factor"], pairs));
  config.rope.long_after = static_cast<std::int64_t>(original);
}

/// The rotated part of a head must be the part that is set aside for it.
void check_partial_factor(Fields& fields, Fields& rope, std::int64_t rotated_of,
                          std::int64_t rotated) {
  const auto all = static_cast<double>(rotated_of);
  const double usual = static_cast<double>(rotated) / all;
  const JsonField outside = fields["partial_rotary_factor"];
  const JsonField inside = rope["partial_rotary_factor"];
  const double factor = inside.number_or(outside.number_or(usual, 0, 1), 0, 1);
  if (static_cast<std::int64_t>(factor * all) != rotated) {
    (inside.is_null() ? outside : inside)
        .expected("a part that comes to qk_rope_head_dim, " + std::to_string(rotated));
  }
}

}  // namespace

void read_rope(Fields& fields, const RopeRules& rules, ModelConfig& config) {
  const nlohmann::json none = nlohmann::json::object();
  const JsonField old_style = fields["rope_scaling"];
  const JsonField new_style = fields["rope_parameters"];
  if (!old_style.is_null() && !new_style.is_null()) {
    old_style.expected("absent where rope_parameters is given");
  }
  Fields rope(!old_style.is_null()   ? old_style
              : !new_style.is_null() ? new_style
                                     : JsonField(none, new_style.name()));

  const auto length = static_cast<double>(config.max_position);
  RopeBase base;
  base.theta = fields["rope_theta"].number_or(rules.default_theta, 2, 1e12);
  base.theta = rope["rope_theta"].number_or(base.theta, 2, 1e12);
  base.original_max_position =
      rope["original_max_position_embeddings"].number_or(length, 2, kMostPositions);
  base.original_max_position = fields["original_max_position_embeddings"].number_or(
      base.original_max_position, 2, kMostPositions);
  check_partial_factor(fields, rope, rules.rotated_of, config.attention.qk_rope_head_dim);

  const JsonField old_type = rope["type"];
  const JsonField new_type = rope["rope_type"];
  const JsonField& type_field = new_type.is_null() ? old_type : new_type;
  const std::string type = type_field.string_or("default");
  if (type == "yarn") {
    read_yarn(rope, base, config);
  } else if (type == "longrope") {
    read_longrope(rope, base, config);
  } else if (type == "default") {
    config.rope.inv_freq =
        default_inverse_frequencies(base.theta, config.attention.qk_rope_head_dim);
  } else {
    type_field.expected("default, yarn or longrope");
  }

  if (rules.scales_positions) {
    config.attention.position_scale_beta =
        static_cast<float>(rope["llama_4_scaling_beta"].number(0, 100));
    config.attention.position_scale_period = static_cast<std::int64_t>(base.original_max_position);
    rope.ignore("max_position_embeddings");
  }
  rope.refuse_others();
}

}  // namespace mla::proto
