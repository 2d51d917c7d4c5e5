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
  if (!fields.has("quantization_config")) return;
  Fields quantization = fields.object("quantization_config");
  if (quantization.text("quant_method") != "fp8") {
    quantization.refuse("quant_method", "\"fp8\"; nothing else is supported");
  }
  quantization.expect("fmt", "e4m3");
  quantization.expect("weight_block_size", {128, 128});
  quantization.ignore({"activation_scheme", "modules_to_not_convert", "scale_fmt"});
  quantization.refuse_others();
}

void read_attention(Fields& fields, ModelConfig& config) {
  AttentionConfig& attention = config.attention;
  attention.num_heads = fields.integer("num_attention_heads", 1, 65536);
  fields.expect("num_key_value_heads", attention.num_heads);
  attention.q_lora_rank = fields.integer_or("q_lora_rank", 0, 1, kMostWidth);
  attention.kv_lora_rank = fields.integer("kv_lora_rank", 1, kMostWidth);
  attention.qk_nope_head_dim = fields.integer("qk_nope_head_dim", 1, 65536);
  attention.qk_rope_head_dim = fields.integer("qk_rope_head_dim", 2, 65536);
  if (attention.qk_rope_head_dim % 2 != 0) fields.refuse("qk_rope_head_dim", "an even number");
  attention.v_head_dim =
      fields.integer_or("v_head_dim", config.hidden_size / attention.num_heads, 1, 65536);
  attention.softmax_scale =
      1 / std::sqrt(static_cast<double>(attention.qk_nope_head_dim + attention.qk_rope_head_dim));
  attention.bias = fields.flag_or("attention_bias", false);
}

/// What all families have, but for rope and experts.
void read_common(Fields& fields, const std::string& layers_key, bool tied, ModelConfig& config) {
  config.hidden_size = fields.integer("hidden_size", 1, kMostWidth);
  config.num_layers = fields.integer(layers_key, 1, kMostLayers);
  config.vocab_size = fields.integer("vocab_size", 1, std::int64_t{1} << 24);
  config.max_position = fields.integer("max_position_embeddings", 1, std::int64_t{1} << 30);
  config.tie_embeddings = fields.flag_or("tie_word_embeddings", tied);
  config.norm_eps = static_cast<float>(fields.number("rms_norm_eps", 1e-12, 1));
  fields.expect("hidden_act", "silu");
  fields.expect("mlp_bias", false);
  check_quantization(fields);
  read_attention(fields, config);
}

void read_dense_width(Fields& fields, ModelConfig& config) {
  config.intermediate_size = fields.integer("intermediate_size", 1, kMostWidth);
}

/// Groups as DeepSeek has them: topk_group of n_group equal runs stay.
void read_groups(Fields& fields, MoeConfig& moe) {
  moe.num_groups = fields.integer_or("n_group", 1, 1, moe.num_experts);
  moe.topk_groups = fields.integer_or("topk_group", 1, 1, moe.num_groups);
  if (moe.num_experts % moe.num_groups != 0) {
    fields.refuse("n_group", "a divisor of " + std::to_string(moe.num_experts) + " experts");
  }
  if (moe.num_experts / moe.num_groups < 2) {
    fields.refuse("n_group", "at least 2 experts in each group");
  }
}

void read_experts(Fields& fields, ModelConfig& config) {
  MoeConfig& moe = config.moe;
  moe.num_experts = fields.integer("n_routed_experts", 2, 65536);
  read_groups(fields, moe);
  moe.top_k =
      fields.integer("num_experts_per_tok", 1, moe.num_experts / moe.num_groups * moe.topk_groups);
  moe.intermediate_size = fields.integer("moe_intermediate_size", 1, kMostWidth);
  moe.shared_intermediate_size =
      moe.intermediate_size * fields.integer("n_shared_experts", 1, 1024);
  moe.routed_scaling_factor = static_cast<float>(fields.number("routed_scaling_factor", 1e-6, 1e6));
  moe.first_layer = fields.integer_or("first_k_dense_replace", 0, 0, config.num_layers);
  fields.expect("moe_layer_freq", 1);
}

void read_sigmoid_routing(Fields& fields, MoeConfig& moe) {
  moe.scoring = ExpertScoring::kSigmoid;
  moe.group_score = GroupScore::kSumOfTopTwo;
  moe.selection_bias = true;
  moe.normalise = fields.flag_or("norm_topk_prob", true);
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
  const std::string method = fields.text_or("topk_method", "greedy");
  if (method == "greedy") {
    moe.num_groups = moe.topk_groups = 1;
  } else if (method != "group_limited_greedy") {
    fields.refuse("topk_method", "greedy or group_limited_greedy");
  }
  fields.expect("scoring_func", "softmax");
  fields.expect("norm_topk_prob", false);
}

void read_deepseek_v3(Fields& fields, ModelConfig& config) {
  read_common(fields, "num_hidden_layers", false, config);
  read_dense_width(fields, config);
  config.rope.interleaved = fields.flag_or("rope_interleave", true);
  read_rope(fields, {.rotated_of = config.attention.qk_rope_head_dim}, config);
  read_experts(fields, config);
  read_sigmoid_routing(fields, config.moe);
}

void read_glm4_moe_lite(Fields& fields, ModelConfig& config) {
  read_deepseek_v3(fields, config);
  MoeConfig& moe = config.moe;
  if (!fields.has("first_k_dense_replace")) moe.first_layer = 1;
  if (!fields.has("mlp_layer_types")) return;
  const std::vector<std::string> types = fields.texts("mlp_layer_types", kMostLayers);
  const auto count = static_cast<std::size_t>(config.num_layers);
  std::size_t dense = 0;
  while (dense < types.size() && types[dense] == "dense") ++dense;
  for (std::size_t i = dense; i < types.size(); ++i) {
    if (types[i] != "sparse") fields.refuse("mlp_layer_types", "\"dense\" ones, then \"sparse\"");
  }
  if (types.size() != count) {
    fields.refuse("mlp_layer_types", "one for each of " + std::to_string(count) + " layers");
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
  config.embedding_scale = static_cast<float>(fields.number("scale_emb", 1e-6, 1e6));
  config.residual_scale =
      static_cast<float>(fields.number("scale_depth", 1e-6, 1e6) / std::sqrt(layers));
  config.logits_scale = static_cast<float>(fields.number("dim_model_base", 1e-6, 1e6) / hidden);
}

void read_longcat_flash(Fields& fields, ModelConfig& config) {
  read_common(fields, "num_layers", false, config);
  AttentionConfig& attention = config.attention;
  if (fields.has("num_hidden_layers")) {
    const std::int64_t stated = fields.integer("num_hidden_layers", 1, 2 * kMostLayers);
    if (stated != config.num_layers && stated != 2 * config.num_layers) {
      fields.refuse("num_hidden_layers", "num_layers, or twice as many");
    }
  }
  config.num_layers *= 2;
  config.intermediate_size = fields.integer("ffn_hidden_size", 1, kMostWidth);
  fields.expect("rope_interleave", true);
  fields.expect("attention_method", "MLA");
  fields.expect("mla_scale_q_lora", true);
  fields.expect("mla_scale_kv_lora", true);
  if (attention.q_lora_rank == 0) fields.refuse("q_lora_rank", "a number");
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
  moe.num_experts = fields.integer("n_routed_experts", 1, 65536);
  moe.num_identity_experts = fields.integer_or("zero_expert_num", 0, 0, 65536);
  moe.top_k = fields.integer("moe_topk", 1, moe.num_experts + moe.num_identity_experts);
  moe.intermediate_size = fields.integer("expert_ffn_hidden_size", 1, kMostWidth);
  moe.routed_scaling_factor = static_cast<float>(fields.number("routed_scaling_factor", 1e-6, 1e6));
  fields.expect("zero_expert_type", "identity");
  fields.expect("router_bias", false);
  fields.expect("norm_topk_prob", false);
}

void read_mistral4(Fields& fields, ModelConfig& config) {
  read_common(fields, "num_hidden_layers", false, config);
  read_dense_width(fields, config);
  const AttentionConfig& attention = config.attention;
  config.rope.interleaved = fields.flag_or("rope_interleave", true);
  read_rope(fields,
            {.rotated_of = attention.qk_nope_head_dim + attention.qk_rope_head_dim,
             .scales_positions = true},
            config);
  read_experts(fields, config);
  config.moe.scoring = ExpertScoring::kSoftmax;
  config.moe.group_score = GroupScore::kSumOfTopTwo;
  config.moe.normalise = fields.flag_or("norm_topk_prob", true);
}

void read_youtu(Fields& fields, ModelConfig& config) {
  read_common(fields, "num_hidden_layers", true, config);
  read_dense_width(fields, config);
  config.rope.interleaved = fields.flag_or("rope_interleave", true);
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
  config.family = fields.text("model_type");
  const auto* const family = std::find_if(kFamilies.begin(), kFamilies.end(),
                                          [&](const auto& f) { return f.first == config.family; });
  if (family == kFamilies.end()) {
    throw Unsupported(fields.name() + ": model_type", config.family,
                      "one of " + supported_families());
  }
  family->second(fields, config);
}

}  // namespace mla::proto
