#include "proto/model_families.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>
#include <vector>

#include "core/error.h"
#include "proto/rope_fields.h"

namespace mla::proto {
namespace {

constexpr std::int64_t kMostWidth = std::int64_t{1} << 20;
constexpr std::int64_t kMostLayers = 10'000;

/// Blocks of 128 x 128 as DeepSeek has them; the checkpoint's tensors say which are quantised.
void check_quantization(Fields& fields) {
  if (fields["quantization_config"].is_null()) return;
  Fields quantization(fields["quantization_config"]);
  if (quantization["quant_method"].string() != "fp8") {
    quantization["quant_method"].expected("\"fp8\"; nothing else is supported");
  }
  quantization.expect("fmt", "e4m3");
  quantization.expect("weight_block_size", {128, 128});
  quantization.ignore("activation_scheme modules_to_not_convert scale_fmt");
  quantization.refuse_others();
}

void read_attention(Fields& fields, ModelConfig& config) {
  AttentionConfig& attention = config.attention;
  attention.num_heads = fields["num_attention_heads"].integer(1, 65536);
  fields.expect("num_key_value_heads", attention.num_heads);
  attention.q_lora_rank = fields["q_lora_rank"].integer_or(0, 1, kMostWidth);
  attention.kv_lora_rank = fields["kv_lora_rank"].integer(1, kMostWidth);
  attention.qk_nope_head_dim = fields["qk_nope_head_dim"].integer(1, 65536);
  attention.qk_rope_head_dim = fields["qk_rope_head_dim"].integer(2, 65536);
  if (attention.qk_rope_head_dim % 2 != 0) fields["qk_rope_head_dim"].expected("an even number");
  attention.v_head_dim =
      fields["v_head_dim"].integer_or(config.hidden_size / attention.num_heads, 1, 65536);
  attention.softmax_scale = 1 / std::sqrt(static_cast<double>(q_head_dim(attention)));
  attention.bias = fields["attention_bias"].boolean_or(false);
}

/// What all families have, but for rope and experts.
void read_common(Fields& fields, const std::string& layers_key, bool tied, ModelConfig& config) {
  config.hidden_size = fields["hidden_size"].integer(1, kMostWidth);
  config.num_layers = fields[layers_key].integer(1, kMostLayers);
  config.vocab_size = fields["vocab_size"].integer(1, std::int64_t{1} << 24);
  config.max_position = fields["max_position_embeddings"].integer(1, std::int64_t{1} << 30);
  config.tie_embeddings = fields["tie_word_embeddings"].boolean_or(tied);
  config.norm_eps = static_cast<float>(fields["rms_norm_eps"].number(1e-12, 1));
  fields.expect("hidden_act", "silu");
  fields.expect("mlp_bias", false);
  check_quantization(fields);
  read_attention(fields, config);
}

void read_dense_width(Fields& fields, ModelConfig& config) {
  config.intermediate_size = fields["intermediate_size"].integer(1, kMostWidth);
}

/// Groups as DeepSeek has them: topk_group of n_group equal runs stay.
void read_groups(Fields& fields, MoeConfig& moe) {
  moe.num_groups = fields["n_group"].integer_or(1, 1, moe.num_experts);
  moe.topk_groups = fields["topk_group"].integer_or(1, 1, moe.num_groups);
  if (moe.num_experts % moe.num_groups != 0) {
    fields["n_group"].expected("a divisor of " + std::to_string(moe.num_experts) + " experts");
  }
  if (moe.num_experts / moe.num_groups < 2) {
    fields["n_group"].expected("at least 2 experts in each group");
  }
}

void read_experts(Fields& fields, ModelConfig& config) {
  MoeConfig& moe = config.moe;
  moe.num_experts = fields["n_routed_experts"].integer(2, 65536);
  read_groups(fields, moe);
  moe.top_k =
      fields["num_experts_per_tok"].integer(1, moe.num_experts / moe.num_groups * moe.topk_groups);
  moe.intermediate_size = fields["moe_intermediate_size"].integer(1, kMostWidth);
  moe.shared_intermediate_size =
      moe.intermediate_size * fields["n_shared_experts"].integer(1, 1024);
  moe.routed_scaling_factor = static_cast<float>(fields["routed_scaling_factor"].number(1e-6, 1e6));
  moe.first_layer = fields["first_k_dense_replace"].integer_or(0, 0, config.num_layers);
  fields.expect("moe_layer_freq", 1);
}

void read_sigmoid_routing(Fields& fields, MoeConfig& moe) {
  moe.scoring = ExpertScoring::kSigmoid;
  moe.group_score = GroupScore::kSumOfTopTwo;
  moe.selection_bias = true;
  moe.normalise = fields["norm_topk_prob"].boolean_or(true);
  fields.expect("scoring_func", "sigmoid");
  fields.expect("topk_method", "noaux_tc");
}

void read_deepseek_v2(Fields& fields, ModelConfig& config) {
  read_common(fields, "num_hidden_layers", false, config);
  read_dense_width(fields, config);
  fields.expect("rope_interleave", true);
  read_rope(fields, {.rotated_of = config.attention.qk_rope_head_dim}, config);
  read_experts(fields, config);
  MoeConfig& moe = config.moe;
  moe.scoring = ExpertScoring::kSoftmax;
  moe.group_score = GroupScore::kMax;
  const std::string method = fields["topk_method"].string_or("greedy");
  if (method == "greedy") {
    moe.num_groups = moe.topk_groups = 1;
  } else if (method != "group_limited_greedy") {
    fields["topk_method"].expected("greedy or group_limited_greedy");
  }
  fields.expect("scoring_func", "softmax");
  fields.expect("norm_topk_prob", false);
}

void read_deepseek_v3(Fields& fields, ModelConfig& config) {
  read_common(fields, "num_hidden_layers", false, config);
  read_dense_width(fields, config);
  config.rope.interleaved = fields["rope_interleave"].boolean_or(true);
  read_rope(fields, {.rotated_of = config.attention.qk_rope_head_dim}, config);
  read_experts(fields, config);
  read_sigmoid_routing(fields, config.moe);
}

void read_glm4_moe_lite(Fields& fields, ModelConfig& config) {
  read_deepseek_v3(fields, config);
  MoeConfig& moe = config.moe;
  if (fields["first_k_dense_replace"].is_null()) moe.first_layer = 1;
  const JsonField types = fields["mlp_layer_types"];
  if (types.is_null()) return;
  if (std::cmp_not_equal(types.size(), config.num_layers)) {
    types.expected("one for each of " + std::to_string(config.num_layers) + " layers");
  }
  std::size_t dense = 0;
  while (dense < types.size() && types.at(dense).string() == "dense") ++dense;
  for (std::size_t i = dense; i < types.size(); ++i) {
    if (types.at(i).string() != "sparse") types.expected("\"dense\" ones, then \"sparse\"");
  }
  moe.first_layer = static_cast<std::int64_t>(dense);
}

void read_minicpm3(Fields& fields, ModelConfig& config) {
  read_common(fields, "num_hidden_layers", true, config);
  read_dense_width(fields, config);
  config.rope.interleaved = false;
  read_rope(fields, {.rotated_of = config.attention.qk_rope_head_dim}, config);
  const auto layers = static_cast<double>(config.num_layers);
  const auto hidden = static_cast<double>(config.hidden_size);
  config.embedding_scale = static_cast<float>(fields["scale_emb"].number(1e-6, 1e6));
  config.residual_scale =
      static_cast<float>(fields["scale_depth"].number(1e-6, 1e6) / std::sqrt(layers));
  config.logits_scale = static_cast<float>(fields["dim_model_base"].number(1e-6, 1e6) / hidden);
}

void read_longcat_flash(Fields& fields, ModelConfig& config) {
  read_common(fields, "num_layers", false, config);
  AttentionConfig& attention = config.attention;
  if (!fields["num_hidden_layers"].is_null()) {
    const std::int64_t stated = fields["num_hidden_layers"].integer(1, 2 * kMostLayers);
    if (stated != config.num_layers && stated != 2 * config.num_layers) {
      fields["num_hidden_layers"].expected("num_layers, or twice as many");
    }
  }
  config.num_layers *= 2;
  config.intermediate_size = fields["ffn_hidden_size"].integer(1, kMostWidth);
  fields.expect("rope_interleave", true);
  fields.expect("attention_method", "MLA");
  fields.expect("mla_scale_q_lora", true);
  fields.expect("mla_scale_kv_lora", true);
  if (attention.q_lora_rank == 0) fields["q_lora_rank"].expected("a number");
  const auto hidden = static_cast<double>(config.hidden_size);
  attention.q_scale =
      static_cast<float>(std::sqrt(hidden / static_cast<double>(attention.q_lora_rank)));
  attention.kv_scale =
      static_cast<float>(std::sqrt(hidden / static_cast<double>(attention.kv_lora_rank)));
  read_rope(fields, {.default_theta = 1e7, .rotated_of = attention.qk_rope_head_dim}, config);

  MoeConfig& moe = config.moe;
  moe.shortcut = true;
  moe.scoring = ExpertScoring::kSoftmax;
  moe.selection_bias = true;
  moe.num_experts = fields["n_routed_experts"].integer(1, 65536);
  moe.num_identity_experts = fields["zero_expert_num"].integer_or(0, 0, 65536);
  moe.top_k = fields["moe_topk"].integer(1, moe.num_experts + moe.num_identity_experts);
  moe.intermediate_size = fields["expert_ffn_hidden_size"].integer(1, kMostWidth);
  moe.routed_scaling_factor = static_cast<float>(fields["routed_scaling_factor"].number(1e-6, 1e6));
  fields.expect("zero_expert_type", "identity");
  fields.expect("router_bias", false);
  fields.expect("norm_topk_prob", false);
}

void read_mistral4(Fields& fields, ModelConfig& config) {
  read_common(fields, "num_hidden_layers", false, config);
  read_dense_width(fields, config);
  const AttentionConfig& attention = config.attention;
  config.rope.interleaved = fields["rope_interleave"].boolean_or(true);
  read_rope(fields, {.rotated_of = q_head_dim(attention), .scales_positions = true}, config);
  read_experts(fields, config);
  config.moe.scoring = ExpertScoring::kSoftmax;
  config.moe.group_score = GroupScore::kSumOfTopTwo;
  config.moe.normalise = fields["norm_topk_prob"].boolean_or(true);
}

void read_youtu(Fields& fields, ModelConfig& config) {
  read_common(fields, "num_hidden_layers", true, config);
  read_dense_width(fields, config);
  config.rope.interleaved = fields["rope_interleave"].boolean_or(true);
  read_rope(fields, {.rotated_of = config.attention.qk_rope_head_dim}, config);
}

using Reader = void (*)(Fields&, ModelConfig&);
constexpr std::array<std::pair<std::string_view, Reader>, 8> kFamilies{{
    {"deepseek_v2", read_deepseek_v2},
    {"deepseek_v3", read_deepseek_v3},
    {"glm4_moe_lite", read_glm4_moe_lite},
    {"kimi_k2", read_deepseek_v3},
    {"longcat_flash", read_longcat_flash},
    {"minicpm3", read_minicpm3},
    {"mistral4", read_mistral4},
    {"youtu", read_youtu},
}};

}  // namespace

std::string supported_families() {
  std::string names;
  for (const auto& [name, reader] : kFamilies) {
    names += (names.empty() ? "" : ", ") + std::string(name);
  }
  return names;
}

void read_family(Fields& fields, ModelConfig& config) {
  const JsonField type = fields["model_type"];
  config.family = type.string();
  const auto* const family = std::find_if(kFamilies.begin(), kFamilies.end(),
                                          [&](const auto& f) { return f.first == config.family; });
  if (family == kFamilies.end()) {
    throw Unsupported(type.name(), config.family, "one of " + supported_families());
  }
  family->second(fields, config);
}

}  // namespace mla::proto
