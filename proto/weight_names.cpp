#include "proto/weight_names.h"

#include <cstdlib>

namespace mla::proto {
namespace {

/// Names of a layer's modules and tensors.
struct LayerNames {
  std::string attention;  ///< followed by q_a_proj.weight and the like
  std::string attention_norm;
  std::string mlp_norm;
  std::string mlp;  ///< followed by gate_proj.weight and the like
  std::string router;
  std::string selection_bias;
  std::string experts;  ///< followed by the expert's number
  std::string shared;
};

LayerNames names_of(const ModelConfig& config, std::int64_t layer) {
  const bool pairs = config.moe.shortcut;
  std::string prefix = "model.layers.";
  prefix += std::to_string(pairs ? layer / 2 : layer) + ".";
  if (pairs) {
    const std::string half = std::to_string(layer % 2) + ".";
    return {.attention = prefix + "self_attn." + half,
            .attention_norm = prefix + "input_layernorm." + half + "weight",
            .mlp_norm = prefix + "post_attention_layernorm." + half + "weight",
            .mlp = prefix + "mlps." + half,
            .router = prefix + "mlp.router.classifier.weight",
            .selection_bias = prefix + "mlp.router.e_score_correction_bias",
            .experts = prefix + "mlp.experts.",
            .shared = ""};
  }
  return {.attention = prefix + "self_attn.",
          .attention_norm = prefix + "input_layernorm.weight",
          .mlp_norm = prefix + "post_attention_layernorm.weight",
          .mlp = prefix + "mlp.",
          .router = prefix + "mlp.gate.weight",
          .selection_bias = prefix + "mlp.gate.e_score_correction_bias",
          .experts = prefix + "mlp.experts.",
          .shared = prefix + "mlp.shared_experts."};
}

MlpWeights mlp_of(const std::string& prefix, std::int64_t hidden, std::int64_t intermediate,
                  WeightSource& source) {
  return {.gate = source.matrix(prefix + "gate_proj.weight", intermediate, hidden),
          .up = source.matrix(prefix + "up_proj.weight", intermediate, hidden),
          .down = source.matrix(prefix + "down_proj.weight", hidden, intermediate)};
}

/// Rows [first, first + rows) of a matrix without scales, as a matrix of its own.
MatrixView rows_of(MatrixView stack, std::int64_t first, std::int64_t rows) {
  stack.data = static_cast<const std::byte*>(stack.data) + first * stack.row_bytes();
  stack.rows = rows;
  return stack;
}

/// A matrix for each expert in two tensors for all (as transformers keep them), or in three tensors
/// for each.
std::vector<MlpWeights> experts_of(const ModelConfig& config, const std::string& prefix,
                                   WeightSource& source) {
  const std::int64_t hidden = config.hidden_size;
  const std::int64_t width = config.moe.intermediate_size;
  const std::int64_t count = config.moe.num_experts;
  const MatrixView gate_up = source.stack(prefix + "gate_up_proj", count, 2 * width, hidden);
  const MatrixView down = source.stack(prefix + "down_proj", count, hidden, width);
  std::vector<MlpWeights> experts;
  for (std::int64_t i = 0; i < count; ++i) {
    if (gate_up.empty() || down.empty()) {
      experts.push_back(mlp_of(prefix + std::to_string(i) + ".", hidden, width, source));
    } else {
      experts.push_back({.gate = rows_of(gate_up, 2 * i * width, width),
                         .up = rows_of(gate_up, (2 * i + 1) * width, width),
                         .down = rows_of(down, i * hidden, hidden)});
    }
  }
  return experts;
}

AttentionWeights attention_of(const ModelConfig& config, const std::string& prefix,
                              WeightSource& source) {
  const AttentionConfig& a = config.attention;
  const std::int64_t hidden = config.hidden_size;
  const std::int64_t q_rows = a.num_heads * q_head_dim(a);
  const std::int64_t kv_a_rows = a.kv_lora_rank + a.qk_rope_head_dim;
  const std::int64_t kv_b_rows = a.num_heads * kv_b_head_dim(a);
  AttentionWeights weights;
  if (a.q_lora_rank == 0) {
    weights.q = source.matrix(prefix + "q_proj.weight", q_rows, hidden);
  } else {
    weights.q_a = source.matrix(prefix + "q_a_proj.weight", a.q_lora_rank, hidden);
    weights.q_a_norm = source.vector(prefix + "q_a_layernorm.weight", a.q_lora_rank);
    weights.q_b = source.matrix(prefix + "q_b_proj.weight", q_rows, a.q_lora_rank);
  }
  weights.kv_a = source.matrix(prefix + "kv_a_proj_with_mqa.weight", kv_a_rows, hidden);
  weights.kv_a_norm = source.vector(prefix + "kv_a_layernorm.weight", a.kv_lora_rank);
  weights.kv_b = source.matrix(prefix + "kv_b_proj.weight", kv_b_rows, a.kv_lora_rank);
  weights.o = source.matrix(prefix + "o_proj.weight", hidden, a.num_heads * a.v_head_dim);
  if (a.bias) {
    if (a.q_lora_rank > 0)
      weights.q_a_bias = source.vector(prefix + "q_a_proj.bias", a.q_lora_rank);
    weights.kv_a_bias = source.vector(prefix + "kv_a_proj_with_mqa.bias", kv_a_rows);
    weights.o_bias = source.vector(prefix + "o_proj.bias", hidden);
  }
  return weights;
}

MoeWeights moe_of(const ModelConfig& config, const LayerNames& names, WeightSource& source) {
  const MoeConfig& moe = config.moe;
  const std::int64_t choices = moe.num_experts + moe.num_identity_experts;
  MoeWeights weights;
  weights.router = source.matrix(names.router, choices, config.hidden_size);
  if (moe.selection_bias) weights.selection_bias = source.vector(names.selection_bias, choices);
  weights.experts = experts_of(config, names.experts, source);
  if (moe.shared_intermediate_size > 0) {
    weights.shared = mlp_of(names.shared, config.hidden_size, moe.shared_intermediate_size, source);
  }
  return weights;
}

LayerWeights layer_weights(const ModelConfig& config, std::int64_t layer, WeightSource& source) {
  const LayerNames names = names_of(config, layer);
  LayerWeights weights;
  weights.attention_norm = source.vector(names.attention_norm, config.hidden_size);
  weights.attention = attention_of(config, names.attention, source);
  weights.mlp_norm = source.vector(names.mlp_norm, config.hidden_size);
  if (has_dense_mlp(config, layer)) {
    weights.mlp = mlp_of(names.mlp, config.hidden_size, config.intermediate_size, source);
  }
  if (has_experts(config, layer)) weights.moe = moe_of(config, names, source);
  return weights;
}

}  // namespace

ModelWeights collect_weights(const ModelConfig& config, WeightSource& source) {
  ModelWeights weights;
  weights.embedding =
      source.matrix("model.embed_tokens.weight", config.vocab_size, config.hidden_size);
  for (std::int64_t layer = 0; layer < config.num_layers; ++layer) {
    weights.layers.push_back(layer_weights(config, layer, source));
  }
  weights.norm = source.vector("model.norm.weight", config.hidden_size);
  weights.head = config.tie_embeddings
                     ? weights.embedding
                     : source.matrix("lm_head.weight", config.vocab_size, config.hidden_size);
  return weights;
}

std::int64_t layer_of(const ModelConfig& config, const std::string& name) {
  const std::string prefix = "model.layers.";
  if (!name.starts_with(prefix)) return -1;
  const std::int64_t number = std::strtoll(name.c_str() + prefix.size(), nullptr, 10);
  return config.moe.shortcut ? 2 * number : number;
}

}  // namespace mla::proto
