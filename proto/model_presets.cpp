#include "proto/model_presets.h"

#include <algorithm>
#include <array>
#include <filesystem>
#include <string_view>

#include "core/error.h"
#include "proto/model_config.h"

namespace mla::proto {
namespace {

struct Preset {
  std::string_view name;
  std::string_view config;
};

constexpr std::array<Preset, 9> kPresets{{
    {"deepseek-v2", R"({
      "model_type": "deepseek_v2", "hidden_size": 5120, "intermediate_size": 12288,
      "num_hidden_layers": 60, "vocab_size": 102400, "max_position_embeddings": 163840,
      "num_attention_heads": 128, "q_lora_rank": 1536, "kv_lora_rank": 512,
      "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128,
      "n_routed_experts": 160, "n_shared_experts": 2, "num_experts_per_tok": 6,
      "moe_intermediate_size": 1536, "first_k_dense_replace": 1, "n_group": 8, "topk_group": 3,
      "topk_method": "group_limited_greedy", "routed_scaling_factor": 16.0, "rms_norm_eps": 1e-6,
      "rope_theta": 10000, "rope_scaling": {"type": "yarn", "factor": 40, "beta_fast": 32,
      "beta_slow": 1, "mscale": 0.707, "mscale_all_dim": 0.707,
      "original_max_position_embeddings": 4096}})"},
    {"deepseek-v2-lite", R"({
      "model_type": "deepseek_v2", "hidden_size": 2048, "intermediate_size": 10944,
      "num_hidden_layers": 27, "vocab_size": 102400, "max_position_embeddings": 163840,
      "num_attention_heads": 16, "kv_lora_rank": 512,
      "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128,
      "n_routed_experts": 64, "n_shared_experts": 2, "num_experts_per_tok": 6,
      "moe_intermediate_size": 1408, "first_k_dense_replace": 1, "topk_method": "greedy",
      "routed_scaling_factor": 1.0, "rms_norm_eps": 1e-6,
      "rope_theta": 10000, "rope_scaling": {"type": "yarn", "factor": 40, "beta_fast": 32,
      "beta_slow": 1, "mscale": 0.707, "mscale_all_dim": 0.707,
      "original_max_position_embeddings": 4096}})"},
    {"deepseek-v3", R"({
      "model_type": "deepseek_v3", "hidden_size": 7168, "intermediate_size": 18432,
      "num_hidden_layers": 61, "vocab_size": 129280, "max_position_embeddings": 163840,
      "num_attention_heads": 128, "q_lora_rank": 1536, "kv_lora_rank": 512,
      "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128,
      "n_routed_experts": 256, "n_shared_experts": 1, "num_experts_per_tok": 8,
      "moe_intermediate_size": 2048, "first_k_dense_replace": 3, "n_group": 8, "topk_group": 4,
      "routed_scaling_factor": 2.5, "rms_norm_eps": 1e-6,
      "rope_theta": 10000, "rope_scaling": {"type": "yarn", "factor": 40, "beta_fast": 32,
      "beta_slow": 1, "mscale": 1.0, "mscale_all_dim": 1.0,
      "original_max_position_embeddings": 4096}})"},
    {"glm-4.7-flash", R"({
      "model_type": "glm4_moe_lite", "hidden_size": 2048, "intermediate_size": 10240,
      "num_hidden_layers": 47, "vocab_size": 154880, "max_position_embeddings": 202752,
      "num_attention_heads": 20, "q_lora_rank": 768, "kv_lora_rank": 512,
      "qk_nope_head_dim": 192, "qk_rope_head_dim": 64, "v_head_dim": 256,
      "n_routed_experts": 64, "n_shared_experts": 1, "num_experts_per_tok": 4,
      "moe_intermediate_size": 1536, "first_k_dense_replace": 1, "routed_scaling_factor": 1.8,
      "rms_norm_eps": 1e-5, "rope_theta": 1000000})"},
    {"kimi-k2", R"({
      "model_type": "kimi_k2", "hidden_size": 7168, "intermediate_size": 18432,
      "num_hidden_layers": 61, "vocab_size": 163840, "max_position_embeddings": 131072,
      "num_attention_heads": 64, "q_lora_rank": 1536, "kv_lora_rank": 512,
      "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128,
      "n_routed_experts": 384, "n_shared_experts": 1, "num_experts_per_tok": 8,
      "moe_intermediate_size": 2048, "first_k_dense_replace": 1, "routed_scaling_factor": 2.827,
      "rms_norm_eps": 1e-6, "rope_theta": 50000, "rope_scaling": {"type": "yarn", "factor": 32,
      "beta_fast": 1, "beta_slow": 1, "mscale": 1.0, "mscale_all_dim": 1.0,
      "original_max_position_embeddings": 4096}})"},
    {"longcat-flash", R"({
      "model_type": "longcat_flash", "hidden_size": 6144, "ffn_hidden_size": 12288,
      "num_layers": 28, "vocab_size": 131072, "max_position_embeddings": 131072,
      "num_attention_heads": 64, "q_lora_rank": 1536, "kv_lora_rank": 512,
      "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128,
      "n_routed_experts": 512, "zero_expert_num": 256, "moe_topk": 12,
      "expert_ffn_hidden_size": 2048, "routed_scaling_factor": 6.0, "rms_norm_eps": 1e-5,
      "rope_theta": 10000000})"},
    {"minicpm3", R"({
      "model_type": "minicpm3", "hidden_size": 2560, "intermediate_size": 6400,
      "num_hidden_layers": 62, "vocab_size": 73448, "max_position_embeddings": 32768,
      "num_attention_heads": 40, "q_lora_rank": 768, "kv_lora_rank": 256,
      "qk_nope_head_dim": 64, "qk_rope_head_dim": 32, "v_head_dim": 64,
      "scale_emb": 12, "scale_depth": 1.4, "dim_model_base": 256, "rms_norm_eps": 1e-5,
      "rope_scaling": {"type": "longrope", "original_max_position_embeddings": 32768,
      "short_factor": [1.0591234137867171, 1.1241891283591912, 1.2596935748670968,
      1.5380380402321725, 2.093982484148734, 3.1446935121267696, 4.937952647693647,
      7.524541999994549, 10.475458000005451, 13.062047352306353, 14.85530648787323,
      15.906017515851266, 16.461961959767827, 16.740306425132903, 16.87581087164081,
      16.940876586213285],
      "long_factor": [1.0591234137867171, 1.1241891283591912, 1.2596935748670968,
      1.5380380402321725, 2.093982484148734, 3.1446935121267696, 4.937952647693647,
      7.524541999994549, 10.475458000005451, 13.062047352306353, 14.85530648787323,
      15.906017515851266, 16.461961959767827, 16.740306425132903, 16.87581087164081,
      16.940876586213285]}})"},
    {"mistral-small-4", R"({
      "model_type": "mistral4", "hidden_size": 4096, "intermediate_size": 12288,
      "num_hidden_layers": 36, "vocab_size": 131072, "max_position_embeddings": 1048576,
      "num_attention_heads": 32, "q_lora_rank": 1024, "kv_lora_rank": 256,
      "qk_nope_head_dim": 64, "qk_rope_head_dim": 64, "v_head_dim": 128,
      "n_routed_experts": 128, "n_shared_experts": 1, "num_experts_per_tok": 4,
      "moe_intermediate_size": 2048, "first_k_dense_replace": 0, "routed_scaling_factor": 1.0,
      "rms_norm_eps": 1e-6, "rope_parameters": {"type": "yarn", "rope_theta": 10000.0,
      "factor": 128.0, "beta_fast": 32, "beta_slow": 1, "mscale": 1.0, "mscale_all_dim": 1.0,
      "original_max_position_embeddings": 8192, "llama_4_scaling_beta": 0.1}})"},
    {"moonlight", R"({
      "model_type": "deepseek_v3", "hidden_size": 2048, "intermediate_size": 11264,
      "num_hidden_layers": 27, "vocab_size": 163840, "max_position_embeddings": 8192,
      "num_attention_heads": 16, "kv_lora_rank": 512,
      "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128,
      "n_routed_experts": 64, "n_shared_experts": 2, "num_experts_per_tok": 6,
      "moe_intermediate_size": 1408, "first_k_dense_replace": 1, "routed_scaling_factor": 2.446,
      "rms_norm_eps": 1e-5, "rope_theta": 50000})"},
}};

}  // namespace

std::string model_preset_names() {
  std::string names;
  for (const Preset& preset : kPresets) {
    names += (names.empty() ? "" : ", ") + std::string(preset.name);
  }
  return names;
}

ModelConfig model_preset(const std::string& name) {
  const auto* const preset = std::find_if(kPresets.begin(), kPresets.end(),
                                          [&](const Preset& p) { return p.name == name; });
  if (preset == kPresets.end()) {
    throw InvalidArgument("model", name, "a folder, or one of " + model_preset_names());
  }
  return parse_model_config(preset->config, "preset " + name);
}

ModelConfig find_model_config(const std::string& folder_or_preset) {
  const bool is_folder = std::filesystem::is_directory(folder_or_preset);
  return is_folder ? read_model_config(folder_or_preset) : model_preset(folder_or_preset);
}

}  // namespace mla::proto
