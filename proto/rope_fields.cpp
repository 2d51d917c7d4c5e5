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
  yarn.factor = rope.number("factor", 1, kMostFactor);
  yarn.original_max_position = base.original_max_position;
  yarn.beta_fast = rope.number_or("beta_fast", yarn.beta_fast, 1e-3, kMostFactor);
  yarn.beta_slow = rope.number_or("beta_slow", yarn.beta_slow, 1e-3, kMostFactor);
  yarn.truncate = rope.flag_or("truncate", true);
  config.rope.inv_freq =
      yarn_inverse_frequencies(base.theta, config.attention.qk_rope_head_dim, yarn);

  const double mscale = rope.number_or("mscale", 0, 0, 100);
  const double mscale_all_dim = rope.number_or("mscale_all_dim", 0, 0, 100);
  const bool both = mscale != 0 && mscale_all_dim != 0;
  const double usual =
      both ? yarn_mscale(yarn.factor, mscale) / yarn_mscale(yarn.factor, mscale_all_dim)
           : yarn_mscale(yarn.factor, 1);
  config.rope.attention_factor =
      static_cast<float>(rope.number_or("attention_factor", usual, 0, 100));
  if (mscale_all_dim != 0) {
    const double m = yarn_mscale(yarn.factor, mscale_all_dim);
    config.attention.softmax_scale *= m * m;
  }
}

void read_longrope(Fields& rope, const RopeBase& base, ModelConfig& config) {
  const std::int64_t dim = config.attention.qk_rope_head_dim;
  const auto pairs = static_cast<std::size_t>(dim / 2);
  const double original = base.original_max_position;
  const double factor =
      rope.number_or("factor", static_cast<double>(config.max_position) / original, 0, kMostFactor);
  config.rope.attention_factor = static_cast<float>(
      rope.number_or("attention_factor", longrope_attention_factor(factor, original), 0, 100));
  config.rope.inv_freq = longrope_inverse_frequencies(
      base.theta, dim, rope.numbers("short_factor", pairs, 1e-3, kMostFactor));
  config.rope.long_inv_freq = longrope_inverse_frequencies(
      base.theta, dim, rope.numbers("long_factor", pairs, 1e-3, kMostFactor));
  config.rope.long_after = static_cast<std::int64_t>(original);
}

/// The rotated part of a head must be the part that is set aside for it.
void check_partial_factor(Fields& fields, Fields& rope, std::int64_t rotated_of,
                          std::int64_t rotated) {
  const auto all = static_cast<double>(rotated_of);
  const double usual = static_cast<double>(rotated) / all;
  const double outside = fields.number_or("partial_rotary_factor", usual, 0, 1);
  const double factor = rope.number_or("partial_rotary_factor", outside, 0, 1);
  if (static_cast<std::int64_t>(factor * all) != rotated) {
    const std::string expected =
        "a part that comes to qk_rope_head_dim, " + std::to_string(rotated);
    (rope.has("partial_rotary_factor") ? rope : fields).refuse("partial_rotary_factor", expected);
  }
}

}  // namespace

void read_rope(Fields& fields, const RopeRules& rules, ModelConfig& config) {
  const nlohmann::json none = nlohmann::json::object();
  const bool has_old = fields.has("rope_scaling");
  const bool has_new = fields.has("rope_parameters");
  if (has_old && has_new) fields.refuse("rope_scaling", "absent where rope_parameters is given");
  Fields rope = has_old   ? fields.object("rope_scaling")
                : has_new ? fields.object("rope_parameters")
                          : Fields(none, "rope_parameters");

  const auto length = static_cast<double>(config.max_position);
  RopeBase base;
  base.theta = fields.number_or("rope_theta", rules.default_theta, 2, 1e12);
  base.theta = rope.number_or("rope_theta", base.theta, 2, 1e12);
  base.original_max_position =
      rope.number_or("original_max_position_embeddings", length, 2, kMostPositions);
  base.original_max_position = fields.number_or("original_max_position_embeddings",
                                                base.original_max_position, 2, kMostPositions);
  check_partial_factor(fields, rope, rules.rotated_of, config.attention.qk_rope_head_dim);

  const std::string old_type = rope.text_or("type", "default");
  const std::string type = rope.text_or("rope_type", old_type);
  if (type == "yarn") {
    read_yarn(rope, base, config);
  } else if (type == "longrope") {
    read_longrope(rope, base, config);
  } else if (type == "default") {
    config.rope.inv_freq =
        default_inverse_frequencies(base.theta, config.attention.qk_rope_head_dim);
  } else {
    rope.refuse(rope.has("rope_type") ? "rope_type" : "type", "default, yarn or longrope");
  }

  if (rules.scales_positions) {
    config.attention.position_scale_beta =
        static_cast<float>(rope.number("llama_4_scaling_beta", 0, 100));
    config.attention.position_scale_period = static_cast<std::int64_t>(base.original_max_position);
    rope.ignore({"max_position_embeddings"});
  }
  rope.refuse_others();
}

}  // namespace mla::proto
