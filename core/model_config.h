#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace mla {

/// Multi-head latent attention of a layer (DeepSeek-V2, 2024). From a normed hidden state x, with h
/// heads:
///   q     = q_b norm(q_a x) * q_scale, or q_proj x      [h, qk_nope + qk_rope]
///   c, r  = split(kv_a x)                               [kv_lora_rank], [qk_rope]
///   cache = (norm(c) * kv_scale, rope(r))               one row for all heads
///   k, v  = kv_b cache.latent                           [h, qk_nope], [h, v_head_dim]
///   out   = o_proj softmax(softmax_scale * (q_nope k + rope(q_rope) rope(r))) v
struct AttentionConfig {
  std::int64_t num_heads = 0;
  std::int64_t q_lora_rank = 0;  ///< 0: q_proj in one step
  std::int64_t kv_lora_rank = 0;
  std::int64_t qk_nope_head_dim = 0;
  std::int64_t qk_rope_head_dim = 0;
  std::int64_t v_head_dim = 0;
  float latent_norm_eps = 1e-6F;  ///< of the norms of q_a and kv_a: not the general one
  float q_scale = 1;              ///< LongCat: sqrt(hidden_size / q_lora_rank)
  float kv_scale = 1;             ///< LongCat: sqrt(hidden_size / kv_lora_rank), not on r
  double softmax_scale = 0;       ///< (qk_nope + qk_rope)^-0.5, times YaRN's m^2
  bool bias = false;              ///< q_a, kv_a and o_proj add a bias

  /// Mistral 4: q is multiplied by 1 + beta ln(1 + floor(position / period)); 0: it is not. See
  /// `position_scale`.
  float position_scale_beta = 0;
  std::int64_t position_scale_period = 1;
};

/// Rotary embedding. Pair i of a vector at position p turns by p * inv_freq[i]; cosine and sine are
/// multiplied by `attention_factor`. Made by the functions of core/rope.h.
struct RopeConfig {
  bool interleaved = true;      ///< pair i is (2i, 2i + 1); else (i, i + qk_rope_head_dim / 2)
  float attention_factor = 1;   ///< of YaRN or LongRoPE
  std::vector<float> inv_freq;  ///< [qk_rope_head_dim / 2]
  /// LongRoPE: what takes the place of inv_freq where contexts may exceed `long_after` tokens. A
  /// whole job uses one or the other (`inverse_frequencies`): a cached row must not depend on what
  /// comes after it. Empty if there is none.
  std::vector<float> long_inv_freq;
  std::int64_t long_after = 0;
};

enum class ExpertScoring : std::uint8_t { kSoftmax, kSigmoid };
enum class GroupScore : std::uint8_t { kMax, kSumOfTopTwo };

/// Mixture of experts (as DeepSeek-V3's, 2024, and others'). For a normed hidden state x, in fp32
/// whatever the weights are:
///   score  = scoring(router x)                          [num_experts + num_identity_experts]
///   choice = score (+ selection_bias)
///   of num_groups equal runs of experts, topk_groups with the best group score stay; choices of
///   the others become -inf; the top_k best choices win
///   weight = score, without bias, (/ (sum over the winners + 1e-20)) * routed_scaling_factor
///   out    = sum over the winners, by expert index, of weight * mlp(x), or weight * x for an
///            identity expert; + shared mlp(x)
struct MoeConfig {
  std::int64_t num_experts = 0;           ///< routed ones with weights; 0: the model is dense
  std::int64_t num_identity_experts = 0;  ///< LongCat: indices from num_experts on
  std::int64_t top_k = 0;
  std::int64_t num_groups = 1;
  std::int64_t topk_groups = 1;
  GroupScore group_score = GroupScore::kSumOfTopTwo;  ///< of choices
  ExpertScoring scoring = ExpertScoring::kSigmoid;
  bool selection_bias = false;
  bool normalise = false;
  float routed_scaling_factor = 1;
  std::int64_t intermediate_size = 0;         ///< of each routed expert
  std::int64_t shared_intermediate_size = 0;  ///< of all shared experts together; 0: none
  std::int64_t first_layer = 0;               ///< layers before it are dense
  /// LongCat: layers come in pairs. The first of a pair has a dense MLP and experts; what these put
  /// out is added to the hidden state after the dense MLP of the second.
  bool shortcut = false;
};

/// A decoder-only transformer with multi-head latent attention, as features that a forward pass
/// looks at: nothing there asks for the family. A layer, with RMS norms and SwiGLU MLPs
/// (down(silu(gate x) * up x)):
///   x += residual_scale * attention(norm(x))
///   x += residual_scale * (mlp or experts)(norm(x))
/// The model: x = embedding[token] * embedding_scale; layers; logits = head (norm(x) *
/// logits_scale).
struct ModelConfig {
  std::string family;  ///< model_type, for messages
  std::int64_t hidden_size = 0;
  std::int64_t num_layers = 0;  ///< attentions, each with a cache of its own: two per LongCat layer
  std::int64_t vocab_size = 0;
  std::int64_t max_position = 0;       ///< longest context, in tokens
  std::int64_t intermediate_size = 0;  ///< of dense MLPs; 0 if there are none
  bool tie_embeddings = false;         ///< the head is the embedding
  float norm_eps = 1e-6F;              ///< of the layers' norms and the last one
  float embedding_scale = 1;
  float residual_scale = 1;
  float logits_scale = 1;
  AttentionConfig attention;
  RopeConfig rope;
  MoeConfig moe;
  std::int32_t bos_token_id = -1;           ///< -1: none
  std::vector<std::int32_t> eos_token_ids;  ///< any of them ends a text
};

/// Whether a layer has experts.
inline bool has_experts(const ModelConfig& config, std::int64_t layer) {
  const MoeConfig& moe = config.moe;
  return moe.num_experts > 0 && layer >= moe.first_layer && !(moe.shortcut && layer % 2 != 0);
}

/// Whether a layer has a dense MLP.
inline bool has_dense_mlp(const ModelConfig& config, std::int64_t layer) {
  return config.moe.shortcut || !has_experts(config, layer);
}

/// Elements of a cache row: latent and rope part.
inline std::int64_t cache_width(const AttentionConfig& attention) {
  return attention.kv_lora_rank + attention.qk_rope_head_dim;
}

/// Elements of a head's query.
inline std::int64_t q_head_dim(const AttentionConfig& attention) {
  return attention.qk_nope_head_dim + attention.qk_rope_head_dim;
}

/// Rows of kv_b for a head: W_UK, then W_UV.
inline std::int64_t kv_b_head_dim(const AttentionConfig& attention) {
  return attention.qk_nope_head_dim + attention.v_head_dim;
}

}  // namespace mla
