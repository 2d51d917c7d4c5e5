#include "proto/model_config.h"

#include <cmath>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/rope.h"
#include "proto/model_presets.h"
#include "proto/weight_names.h"
#include "tests/proto/model_files.h"

namespace mla::proto {
namespace {

using nlohmann::json;
using testing::AllOf;
using testing::HasSubstr;

json config_of(const std::string& name) {
  return json_of(kTinyModels / name / "config.json");
}

ModelConfig parse(const json& config) {
  return parse_model_config(config.dump(), "config.json");
}

std::string error_of_config(const json& config) {
  return error_of([&] { parse(config); });
}

TEST(ModelConfig, HasTheFrequenciesAndScalesOfTransformers) {
  for (const std::string name : kTinyNames) {
    SCOPED_TRACE(name);
    const ModelConfig config = read_model_config(kTinyModels / name);
    const json golden = json_of(kTinyModels / name / "golden.json");
    EXPECT_NEAR(config.attention.softmax_scale, golden["softmax_scale"], 1e-12);
    EXPECT_FLOAT_EQ(config.rope.attention_factor, golden["attention_factor"]);
    const auto expected = golden["inv_freq"].get<std::vector<float>>();
    const auto actual = inverse_frequencies(config.rope, 64);
    ASSERT_EQ(actual.size(), expected.size());
    for (std::size_t i = 0; i < expected.size(); ++i) EXPECT_FLOAT_EQ(actual[i], expected[i]) << i;
  }
}

TEST(ModelConfig, MeansTheSameInBothStyles) {
  const json old_style = config_of("deepseek_v3");
  json new_style = old_style;
  new_style["rope_parameters"] = old_style["rope_scaling"];
  new_style["rope_parameters"]["rope_type"] = "yarn";
  new_style["rope_parameters"]["rope_theta"] = old_style["rope_theta"];
  new_style["dtype"] = "bfloat16";
  for (const char* key : {"rope_scaling", "rope_theta", "torch_dtype"}) new_style.erase(key);
  const ModelConfig a = parse(old_style);
  const ModelConfig b = parse(new_style);
  EXPECT_EQ(a.rope.inv_freq, b.rope.inv_freq);
  EXPECT_EQ(a.attention.softmax_scale, b.attention.softmax_scale);
  new_style["rope_scaling"] = old_style["rope_scaling"];
  EXPECT_THAT(error_of_config(new_style), HasSubstr("rope_scaling"));
}

TEST(ModelConfig, KnowsTheTrapsOfEachFamily) {
  const ModelConfig v2 = parse(config_of("deepseek_v2"));
  EXPECT_EQ(v2.moe.group_score, GroupScore::kMax);
  EXPECT_FALSE(v2.moe.normalise);
  const ModelConfig v3 = parse(config_of("deepseek_v3"));
  EXPECT_TRUE(v3.moe.selection_bias && v3.moe.normalise && v3.rope.interleaved);
  EXPECT_EQ(v3.moe.scoring, ExpertScoring::kSigmoid);
  const ModelConfig mini = parse(config_of("minicpm3"));
  EXPECT_FALSE(mini.rope.interleaved);
  EXPECT_TRUE(mini.tie_embeddings);
  EXPECT_FLOAT_EQ(mini.embedding_scale, 12);
  EXPECT_FLOAT_EQ(mini.residual_scale, 4 / std::sqrt(2.0F));
  EXPECT_FLOAT_EQ(mini.logits_scale, 0.25F);
  EXPECT_FLOAT_EQ(mini.norm_eps, 1e-5F);
  EXPECT_FLOAT_EQ(mini.attention.latent_norm_eps, 1e-6F);
  EXPECT_NE(inverse_frequencies(mini.rope, 32)[7], inverse_frequencies(mini.rope, 33)[7]);
  const ModelConfig longcat = parse(config_of("longcat_flash"));
  EXPECT_EQ(longcat.num_layers, 4);
  EXPECT_TRUE(has_experts(longcat, 2) && has_dense_mlp(longcat, 2) && has_dense_mlp(longcat, 3));
  EXPECT_FALSE(has_experts(longcat, 3));
  EXPECT_EQ(longcat.moe.num_identity_experts, 3);
  EXPECT_FLOAT_EQ(longcat.attention.kv_scale, std::sqrt(2.0F));
  const ModelConfig mistral = parse(config_of("mistral4"));
  EXPECT_EQ(position_scale(mistral.attention, 15), 1);
  EXPECT_FLOAT_EQ(position_scale(mistral.attention, 48), 1 + 0.1F * std::log(4.0F));
  EXPECT_TRUE(parse(config_of("youtu")).attention.bias);
  EXPECT_EQ(parse(config_of("glm4_moe_lite")).moe.first_layer, 1);
}

TEST(ModelConfig, RefusesOtherFamiliesByName) {
  json config = config_of("deepseek_v3");
  for (const char* family : {"deepseek_v32", "glm_moe_dsa", "kimi_linear", "llama"}) {
    config["model_type"] = family;
    EXPECT_THAT(error_of_config(config),
                AllOf(HasSubstr(family), HasSubstr("deepseek_v2, deepseek_v3, glm4_moe_lite")));
  }
}

TEST(ModelConfig, NamesTheFieldAndTheValueThatItRefuses) {
  struct Case {
    const char* family;
    const char* key;
    json value;
  };
  const std::vector<Case> cases{
      {"deepseek_v3", "index_topk", 2048},
      {"deepseek_v3", "sliding_window", 4096},
      {"deepseek_v3", "hidden_size", -7},
      {"deepseek_v3", "hidden_size", 1e300},
      {"deepseek_v3", "hidden_size", "64"},
      {"deepseek_v3", "hidden_size", nullptr},
      {"deepseek_v3", "num_hidden_layers", 0},
      {"deepseek_v3", "vocab_size", std::uint64_t{1} << 63},
      {"deepseek_v3", "qk_rope_head_dim", 15},
      {"deepseek_v3", "num_key_value_heads", 2},
      {"deepseek_v3", "hidden_act", "gelu"},
      {"deepseek_v3", "scoring_func", "softmax"},
      {"deepseek_v3", "topk_method", "greedy"},
      {"deepseek_v3", "moe_layer_freq", 2},
      {"deepseek_v3", "n_group", 3},
      {"deepseek_v3", "n_group", 8},
      {"deepseek_v3", "topk_group", 5},
      {"deepseek_v3", "num_experts_per_tok", 5},
      {"deepseek_v3", "first_k_dense_replace", 3},
      {"deepseek_v3", "rms_norm_eps", 0},
      {"deepseek_v3", "eos_token_id", "</s>"},
      {"deepseek_v3", "bos_token_id", 128},
      {"deepseek_v3", "partial_rotary_factor", 0.5},
      {"deepseek_v3", "quantization_config", {{"quant_method", "awq"}}},
      {"deepseek_v2", "norm_topk_prob", true},
      {"deepseek_v2", "topk_method", "noaux_tc"},
      {"glm4_moe_lite", "mlp_layer_types", {"sparse", "dense"}},
      {"glm4_moe_lite", "mlp_layer_types", {"sparse"}},
      {"minicpm3", "scale_depth", nullptr},
      {"longcat_flash", "router_bias", true},
      {"longcat_flash", "zero_expert_type", "copy"},
      {"longcat_flash", "mla_scale_q_lora", false},
      {"youtu", "mlp_bias", true},
  };
  for (const Case& c : cases) {
    json config = config_of(c.family);
    config[c.key] = c.value;
    EXPECT_THAT(error_of_config(config), HasSubstr(c.key)) << c.family << ' ' << c.value;
  }
}

TEST(ModelConfig, RefusesRopeThatItDoesNotKnow) {
  json config = config_of("deepseek_v3");
  config["rope_scaling"]["type"] = "llama3";
  EXPECT_THAT(error_of_config(config), AllOf(HasSubstr("rope_scaling: type"), HasSubstr("llama3")));
  config = config_of("deepseek_v3");
  config["rope_scaling"]["llama_4_scaling_beta"] = 0.1;
  EXPECT_THAT(error_of_config(config), HasSubstr("rope_scaling: llama_4_scaling_beta"));
  config = config_of("deepseek_v3");
  config["rope_scaling"]["factor"] = 0;
  EXPECT_THAT(error_of_config(config), HasSubstr("rope_scaling: factor"));
  config = config_of("minicpm3");
  config["rope_scaling"]["long_factor"] = {1, 2};
  EXPECT_THAT(error_of_config(config), HasSubstr("an array; expected an array of 8 numbers"));
}

TEST(ModelConfig, RefusesEveryTruncatedFile) {
  const std::string text = read_text(kTinyModels / "mistral4/config.json");
  for (std::size_t size = 0; size + 2 < text.size(); ++size) {
    EXPECT_EQ(exit_code_of([&] { parse_model_config(text.substr(0, size), "config.json"); }),
              ExitCode::kBadInput);
  }
  EXPECT_THAT(error_of([] { parse_model_config(std::string(100'000, '['), "config.json"); }),
              HasSubstr("nested too deep"));
  EXPECT_THAT(error_of([] { parse_model_config("3", "config.json"); }), HasSubstr("a JSON object"));
}

TEST(ModelConfig, TakesTheEndOfTextFromTheGenerationConfig) {
  const TempDir folder;
  EXPECT_THAT(error_of([&] { read_model_config(folder.path()); }), HasSubstr("config.json"));
  write_file(folder / "config.json", config_of("deepseek_v3").dump());
  EXPECT_EQ(read_model_config(folder.path()).eos_token_ids, std::vector<std::int32_t>{1});
  write_file(folder / "generation_config.json", R"({"eos_token_id": [7, 9], "temperature": 0.6})");
  EXPECT_EQ(read_model_config(folder.path()).eos_token_ids, (std::vector<std::int32_t>{7, 9}));
}

TEST(ModelConfig, CutsLayers) {
  EXPECT_EQ(cut_layers(parse(config_of("deepseek_v3")), 1).num_layers, 1);
  EXPECT_THROW(cut_layers(parse(config_of("deepseek_v3")), 3), InvalidArgument);
  EXPECT_THROW(cut_layers(parse(config_of("longcat_flash")), 1), InvalidArgument);
}

/// Counts the elements of the matrices that a model asks for.
class Counter final : public WeightSource {
 public:
  MatrixView matrix(const std::string&, std::int64_t rows, std::int64_t cols) override {
    count += rows * cols;
    return {.rows = rows, .cols = cols};
  }
  MatrixView stack(const std::string&, std::int64_t, std::int64_t, std::int64_t) override {
    return {};
  }
  std::vector<float> vector(const std::string&, std::int64_t) override { return {}; }

  std::int64_t count = 0;
};

TEST(ModelPresets, HaveAsManyParametersAsPublished) {
  const std::vector<std::pair<std::string, double>> billions{
      {"deepseek-v2", 236},     {"deepseek-v2-lite", 15.7}, {"deepseek-v3", 671},
      {"kimi-k2", 1026},        {"longcat-flash", 562},     {"minicpm3", 4.07},
      {"mistral-small-4", 119}, {"moonlight", 15.96}};
  for (const auto& [name, published] : billions) {
    Counter counter;
    collect_weights(model_preset(name), counter);
    EXPECT_NEAR(static_cast<double>(counter.count) / 1e9, published, 0.01 * published) << name;
  }
}

TEST(ModelPresets, AreFoundByNameWhereThereIsNoFolder) {
  EXPECT_EQ(find_model_config("glm-4.7-flash").num_layers, 47);
  EXPECT_EQ(find_model_config((kTinyModels / "glm4_moe_lite").string()).num_layers, 2);
  EXPECT_THAT(error_of([] { find_model_config("gpt-2"); }),
              AllOf(HasSubstr("gpt-2"), HasSubstr("a folder"), HasSubstr("glm-4.7-flash")));
}

}  // namespace
}  // namespace mla::proto
