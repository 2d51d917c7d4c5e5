// Checkpoints that are spoilt, and prompts that cannot be answered alone.

#include <filesystem>
#include <functional>
#include <stdexcept>
#include <utility>

#include "tests/launch/bad_input.h"

namespace mla::launch {
namespace {

namespace fs = std::filesystem;

using Spoil = std::function<void(const Inputs&)>;

/// Generates with a copy of a small model, spoilt.
BadInputCase model(const std::string& name, Spoil spoil, int exit_code, const std::string& line) {
  const auto arguments = [spoil = std::move(spoil)](const Inputs& in) {
    fs::create_directory(in / "model");
    for (const char* file : {"config.json", "model.safetensors"}) {
      fs::copy_file(fs::path(MLA_SOURCE_DIR "/tests/data/models/deepseek_v3") / file,
                    in / "model/" + file);
    }
    spoil(in);
    in.write(
        "requests.jsonl",
        R"({"custom_id":"a","method":"POST","url":"/v1/completions","body":{"prompt":[1,2]}})");
    return "generate " + in / "model" + " " + in / "requests.jsonl" + " --output " + in / "answers";
  };
  return {name, arguments, exit_code, line};
}

/// Of a field of the configuration: replaces `from` by `to`.
BadInputCase config(const std::string& name, const std::string& from, const std::string& to,
                    const std::string& line) {
  const auto spoil = [from, to](const Inputs& in) {
    std::string text = read_text(in / "model/config.json");
    const auto at = text.find(from);
    if (at == std::string::npos) throw std::logic_error("not in the configuration: " + from);
    in.write("model/config.json", text.replace(at, from.size(), to));
  };
  return model(name, spoil, 3, line);
}

/// Into the last row of the head, which is the first tensor of the file, of 128 rows of 64 BF16:
/// only the last rank reads it.
void put_nan_into_head(const Inputs& in) {
  std::string bytes = read_text(in / "model/model.safetensors");
  const auto header_bytes = static_cast<unsigned char>(bytes[0]) +
                            (std::size_t{static_cast<unsigned char>(bytes[1])} << 8);
  bytes.replace(8 + header_bytes + 128 * 64 * 2 - 2, 2, 2, '\xff');
  in.write("model/model.safetensors", bytes);
}

BadInputCase prompt(const std::string& name, const std::string& text, const std::string& line) {
  return {name,
          [text](const Inputs& in) {
            in.write("prompt", text);
            return "generate " MLA_SOURCE_DIR "/launch/demo/model --quiet --prompt \"$(cat " +
                   in / "prompt" + ")\"";
          },
          3, line};
}

}  // namespace

std::vector<BadInputCase> model_cases() {
  BadInputCase llama =
      config("ModelOfAnotherFamily", "\"model_type\": \"deepseek_v3\"", "\"model_type\": \"llama\"",
             "DIR/model/config.json: model_type: llama; expected one of deepseek_v2, deepseek_v3, "
             "glm4_moe_lite, kimi_k2, longcat_flash, minicpm3, mistral4, youtu");
  llama.exit_code = 2;
  return {
      model(
          "ModelWithoutWeights",
          [](const Inputs& in) { fs::remove(in / "model/model.safetensors"); }, 3,
          "file 'DIR/model/model.safetensors': No such file or directory; expected a file that can "
          "be "
          "read"),
      model(
          "ModelLacksShard",
          [](const Inputs& in) {
            in.write("model/model.safetensors.index.json",
                     R"({"weight_map":{"model.embed_tokens.weight":"model-2-of-2.safetensors"}})");
          },
          3,
          "file 'DIR/model/model-2-of-2.safetensors': No such file or directory; expected a file "
          "that "
          "can be read"),
      model(
          "ModelCutShort",
          [](const Inputs& in) { fs::resize_file(in / "model/model.safetensors", 90000); }, 3,
          "safetensors 'DIR/model/model.safetensors': tensor "
          "'model.layers.0.self_attn.q_b_proj.weight': ends at byte 89488; expected at most 84272, "
          "where the file ends"),
      model("ModelOfNaNs", put_nan_into_head, 3,
            "checkpoint 'DIR/model/model.safetensors': tensor 'lm_head.weight': a NaN "
            "or an infinity in row 127; expected numbers"),
      config("ModelWrongShape", "\"vocab_size\": 128", "\"vocab_size\": 120",
             "checkpoint 'DIR/model/model.safetensors': tensor "
             "'model.embed_tokens.weight': shape: [128, 64]; expected [120, 64]"),
      config("ModelAbsurdlyWide", "\"hidden_size\": 64", "\"hidden_size\": 1000000000000",
             "DIR/model/config.json: hidden_size: 1000000000000; expected an integer "
             "from 1 to 1048576"),
      config("ModelOfNoLayers", "\"num_hidden_layers\": 2", "\"num_hidden_layers\": 0",
             "DIR/model/config.json: num_hidden_layers: 0; expected an integer from 1 to 10000"),
      config("ModelWithAnIndexer", "\"vocab_size\"", "\"index_topk\": 8, \"vocab_size\"",
             "DIR/model/config.json: index_topk: 8; expected no such field: it may "
             "change what the model computes, in a way unknown here"),
      config("ModelConfigNotJson", "\"vocab_size\": 128", "\"vocab_size\": ",
             "file 'DIR/model/config.json': parse error at line 4, column 17: syntax error while "
             "parsing "
             "value - unexpected ','; expected '[', '{', or a literal; expected JSON in UTF-8"),
      llama,
      {"PlanForAnotherTypeOfCache",
       [](const Inputs&) { return std::string("plan --model deepseek-v2-lite --kv-dtype int8"); },
       2, "--kv-dtype: int8; expected bf16, fp16 or fp32"},
      prompt("PromptNotUtf8", "a\xff", "prompt: byte 1 (0xff); expected text in UTF-8"),
      prompt("PromptTooLong", std::string(20000, 'x'),
             "prompt: 20001 tokens; expected fewer than the context of 2048")};
}

}  // namespace mla::launch
