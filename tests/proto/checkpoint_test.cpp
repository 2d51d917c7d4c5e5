#include "proto/checkpoint.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/dtype.h"
#include "core/huge_pages.h"
#include "proto/dummy_weights.h"
#include "proto/model_config.h"
#include "proto/model_presets.h"
#include "proto/safetensors.h"
#include "tests/proto/model_files.h"

namespace mla::proto {
namespace {

using testing::AllOf;
using testing::HasSubstr;

/// A tensor in memory.
struct Tensor {
  TensorSpec spec;
  std::vector<std::byte> data;
};

using Tensors = std::vector<Tensor>;

Tensors read_tensors(const std::filesystem::path& path) {
  const SafetensorsFile file(path);
  Tensors tensors;
  for (const TensorInfo& info : file.tensors()) {
    const auto data = file.data(info);
    tensors.push_back({{info.name, info.dtype, info.shape}, {data.begin(), data.end()}});
  }
  return tensors;
}

void write_tensors(const std::filesystem::path& path, const Tensors& tensors) {
  std::vector<TensorSpec> specs;
  for (const Tensor& tensor : tensors) specs.push_back(tensor.spec);
  SafetensorsWriter writer(path, specs);
  for (const Tensor& tensor : tensors) writer.write(tensor.data);
  writer.commit();
}

Tensor& named(Tensors& tensors, const std::string& name) {
  return *std::find_if(tensors.begin(), tensors.end(),
                       [&](const Tensor& t) { return t.spec.name == name; });
}

void prepare_all(const ModelWeights& weights) {
  const auto prepare = [&](const MatrixView& m) { weights.storage->prepare(m, {0, m.rows}); };
  prepare(weights.embedding);
  prepare(weights.head);
  for (const LayerWeights& layer : weights.layers) {
    prepare(layer.attention.kv_b);
    for (const MlpWeights& expert : layer.moe.experts) prepare(expert.up);
  }
}

/// What loading a tiny model says once its tensors were changed; "" if nothing.
std::string error_after(const std::string& model, const std::function<void(Tensors&)>& change) {
  const TempDir folder;
  Tensors tensors = read_tensors(kTinyModels / model / "model.safetensors");
  change(tensors);
  write_tensors(folder / "model.safetensors", tensors);
  const ModelConfig config = read_model_config(kTinyModels / model);
  return error_of([&] { prepare_all(load_weights(config, folder.path())); });
}

TEST(Checkpoint, LoadsTinyModelsOfAllFamilies) {
  for (const std::string name : kTinyNames) {
    SCOPED_TRACE(name);
    const ModelConfig config = read_model_config(kTinyModels / name);
    const ModelWeights weights = load_weights(config, kTinyModels / name);
    EXPECT_EQ(static_cast<std::int64_t>(weights.layers.size()), config.num_layers);
    EXPECT_EQ(weights.embedding.rows, 128);
    EXPECT_EQ(weights.head.data == weights.embedding.data, config.tie_embeddings);
    EXPECT_EQ(static_cast<std::int64_t>(weights.norm.size()), config.hidden_size);
    for (std::int64_t i = 0; i < config.num_layers; ++i) {
      const LayerWeights& layer = weights.layers[static_cast<std::size_t>(i)];
      EXPECT_EQ(layer.mlp.gate.empty(), !has_dense_mlp(config, i));
      EXPECT_EQ(layer.moe.experts.empty(), !has_experts(config, i));
      EXPECT_EQ(layer.attention.q.empty(), config.attention.q_lora_rank > 0);
    }
    prepare_all(weights);
  }
}

TEST(Checkpoint, ReadsShardsThroughTheirIndex) {
  const std::filesystem::path folder = std::filesystem::path(MLA_SOURCE_DIR) / "launch/demo/model";
  const ModelConfig config = read_model_config(folder);
  const ModelWeights weights = load_weights(config, folder);
  prepare_all(weights);
  EXPECT_EQ(weights.layers.back().moe.experts.size(), 16u);
}

TEST(Checkpoint, CutsExpertsOutOfOneTensor) {
  const std::filesystem::path folder = kTinyModels / "mistral4";
  const ModelWeights weights = load_weights(read_model_config(folder), folder);
  const SafetensorsFile file(folder / "model.safetensors");
  const TensorInfo* const stack = file.find("model.layers.0.mlp.experts.gate_up_proj");
  const auto expected = file.data(*stack).subspan(2 * 3 * 2 * 16 * 64 + 2 * 16 * 64, 2 * 16 * 64);
  const MatrixView& up = weights.layers[0].moe.experts[3].up;
  EXPECT_EQ(std::memcmp(up.data, expected.data(), expected.size()), 0);
}

TEST(Checkpoint, HasScalesForRaggedBlocks) {
  const std::filesystem::path folder = kTinyModels / "deepseek_v3_fp8";
  const ModelWeights weights = load_weights(read_model_config(folder), folder);
  const MatrixView& gate = weights.layers[0].mlp.gate;
  EXPECT_EQ(gate.type, WeightType::kFp8E4m3);
  EXPECT_EQ(gate.rows, 144);
  EXPECT_EQ(gate.scale_cols, 2);
  EXPECT_GT(gate.scales[3], 0);
  EXPECT_EQ(weights.head.type, WeightType::kBf16);
  EXPECT_EQ(weights.layers[1].moe.router.type, WeightType::kBf16);
}

TEST(Checkpoint, NamesTheTensorThatIsWrong) {
  const std::string up = "model.layers.1.mlp.experts.3.up_proj.weight";
  const auto without = [](const std::string& name) {
    return [name](Tensors& tensors) {
      std::erase_if(tensors, [&](const Tensor& t) { return t.spec.name == name; });
    };
  };
  EXPECT_EQ(error_after("deepseek_v3", [](Tensors&) {}), "");
  EXPECT_THAT(error_after("deepseek_v3", without(up)), AllOf(HasSubstr(up), HasSubstr("missing")));
  EXPECT_THAT(error_after("deepseek_v3", without("lm_head.weight")), HasSubstr("lm_head.weight"));
  EXPECT_THAT(error_after("deepseek_v3_fp8", without(up + "_scale_inv")), HasSubstr("_scale_inv"));
  EXPECT_THAT(error_after("deepseek_v3",
                          [&](Tensors& t) {
                            std::swap(named(t, up).spec.shape[0], named(t, up).spec.shape[1]);
                          }),
              AllOf(HasSubstr(up), HasSubstr("[64, 16]"), HasSubstr("[16, 64]")));
  EXPECT_THAT(error_after("deepseek_v3", [&](Tensors& t) { named(t, up).spec.dtype = "I16"; }),
              AllOf(HasSubstr(up), HasSubstr("I16"), HasSubstr("BF16")));
  EXPECT_THAT(error_after("deepseek_v3_fp8",
                          [&](Tensors& t) {
                            named(t, up + "_scale_inv").spec.shape = {2, 1};
                          }),
              AllOf(HasSubstr("_scale_inv"), HasSubstr("[1, 2]")));
}

TEST(Checkpoint, RefusesTensorsThatWouldChangeTheModel) {
  const auto with = [](const std::string& name) {
    return [name](Tensors& t) { t.push_back({{name, "F32", {1}}, std::vector<std::byte>(4)}); };
  };
  EXPECT_THAT(error_after("deepseek_v3", with("model.layers.0.self_attn.q_b_proj.bias")),
              AllOf(HasSubstr("q_b_proj.bias"), HasSubstr("no use")));
  EXPECT_EQ(error_after("deepseek_v3", with("model.layers.2.eh_proj.weight")), "");
  EXPECT_EQ(error_after("deepseek_v3", with("model.layers.0.self_attn.rotary_emb.inv_freq")), "");
  EXPECT_EQ(error_after("longcat_flash", with("model.layers.0.mlp.experts.6.up_proj.weight")), "");
}

TEST(Checkpoint, FindsNumbersThatAreNone) {
  const auto set_bf16 = [](const std::string& name, std::size_t i, std::uint16_t bits) {
    return [=](Tensors& t) { std::memcpy(named(t, name).data.data() + 2 * i, &bits, 2); };
  };
  const std::string kv_b = "model.layers.1.self_attn.kv_b_proj.weight";
  EXPECT_THAT(error_after("deepseek_v3", set_bf16(kv_b, 32 * 100 + 5, 0x7fc0)),
              AllOf(HasSubstr(kv_b), HasSubstr("row 100")));
  EXPECT_THAT(error_after("deepseek_v3", set_bf16("model.norm.weight", 3, 0xff80)),
              HasSubstr("model.norm.weight"));
  EXPECT_THAT(
      error_after("deepseek_v3_fp8", [&](Tensors& t) { named(t, kv_b).data[0] = std::byte{0xff}; }),
      HasSubstr(kv_b));
  EXPECT_THAT(error_after("deepseek_v3_fp8",
                          [&](Tensors& t) {
                            const float nan = std::nanf("");
                            std::memcpy(named(t, kv_b + "_scale_inv").data.data(), &nan, 4);
                          }),
              HasSubstr(kv_b + "_scale_inv"));
}

TEST(Checkpoint, NamesTheFileThatIsWrong) {
  const TempDir folder;
  const ModelConfig config = read_model_config(kTinyModels / "deepseek_v3");
  const auto load = [&] { load_weights(config, folder.path()); };
  EXPECT_THAT(error_of(load), HasSubstr("model.safetensors"));

  const std::vector<std::byte> file = read_bytes(kTinyModels / "deepseek_v3/model.safetensors");
  write_file(folder / "model.safetensors", std::span(file).first(file.size() / 2));
  EXPECT_THAT(error_of(load), AllOf(HasSubstr("model.safetensors"), HasSubstr("file ends")));

  nlohmann::json index;
  for (const Tensor& tensor : read_tensors(kTinyModels / "deepseek_v3/model.safetensors")) {
    index["weight_map"][tensor.spec.name] = "model-00001-of-00002.safetensors";
  }
  write_file(folder / "model.safetensors.index.json", index.dump());
  EXPECT_THAT(error_of(load), HasSubstr("model-00001-of-00002.safetensors"));
  index["weight_map"]["lm_head.weight"] = "../elsewhere";
  write_file(folder / "model.safetensors.index.json", index.dump());
  EXPECT_THAT(error_of(load), AllOf(HasSubstr("lm_head.weight"), HasSubstr("../elsewhere")));
  write_file(folder / "model.safetensors.index.json", "{");
  EXPECT_THAT(error_of(load), HasSubstr("index.json"));
}

TEST(DummyWeights, DependOnNothingButTheirPlace) {
  const ModelConfig config = read_model_config(kTinyModels / "deepseek_v3");
  for (const WeightType type :
       {WeightType::kBf16, WeightType::kFp16, WeightType::kFp32, WeightType::kFp8E4m3}) {
    const ModelWeights a = make_dummy_weights(config, 7, type);
    const ModelWeights b = make_dummy_weights(cut_layers(config, 1), 7, type);
    const MatrixView& whole = a.layers[0].mlp.up;
    const MatrixView& part = b.layers[0].mlp.up;
    a.storage->prepare(whole, {0, whole.rows});
    b.storage->prepare(part, {5, 9});
    const std::int64_t row = whole.cols * size_of(type);
    const auto* const x = static_cast<const std::byte*>(whole.data) + 5 * row;
    const auto* const y = static_cast<const std::byte*>(part.data) + 5 * row;
    EXPECT_EQ(std::memcmp(x, y, static_cast<std::size_t>(4 * row)), 0);
    a.storage->prepare(a.layers[0].mlp.gate, {5, 9});
    const auto* const other = static_cast<const std::byte*>(a.layers[0].mlp.gate.data) + 5 * row;
    EXPECT_NE(std::memcmp(x, other, static_cast<std::size_t>(4 * row)), 0);
  }
}

TEST(DummyWeights, TakeUpWhatIsUsedWhereRanksShareEveryMatrix) {
  if (huge_page_bytes() < 0) GTEST_SKIP() << "no /proc/self/smaps_rollup";
  const ModelConfig config = cut_layers(model_preset("deepseek-v2-lite"), 2);
  const ModelWeights weights = make_dummy_weights(config, 7, WeightType::kBf16);
  const std::int64_t before = huge_page_bytes();
  for (const MlpWeights& expert : weights.layers[1].moe.experts) {
    weights.storage->prepare(expert.up, {0, 8});
  }
  EXPECT_LE(huge_page_bytes() - before, 2 * kHugePageBytes);  // of 64 matrices
}

TEST(DummyWeights, KeepActivationsNearOne) {
  const ModelConfig config = read_model_config(kTinyModels / "deepseek_v3");
  const ModelWeights weights = make_dummy_weights(config, 7, WeightType::kFp32);
  const auto mean_square = [&](const MatrixView& m) {
    weights.storage->prepare(m, {0, m.rows});
    const auto* const data = static_cast<const float*>(m.data);
    double sum = 0;
    for (std::int64_t i = 0; i < m.rows * m.cols; ++i) {
      sum += static_cast<double>(data[i]) * static_cast<double>(data[i]);
    }
    return sum / static_cast<double>(m.rows * m.cols);
  };
  EXPECT_NEAR(mean_square(weights.embedding), 1, 0.05);
  EXPECT_NEAR(mean_square(weights.head) * 64, 1, 0.05);
  EXPECT_NEAR(mean_square(weights.layers[0].attention.q_b) * 24, 1, 0.05);
  EXPECT_EQ(weights.norm, std::vector<float>(64, 1.0F));
}

}  // namespace
}  // namespace mla::proto
