#include <string>
#include <utility>
#include <vector>

#include "core/error.h"
#include "proto/json_reader.h"
#include "proto/perl_pattern.h"
#include "proto/token_text.h"
#include "proto/tokenizer_vocab.h"

namespace mla::proto {
namespace {

using nlohmann::json;

constexpr std::size_t kMaxFileBytes = std::size_t{1} << 28;
constexpr int kMaxDepth = 16;
constexpr std::string_view kGpt2Pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

/// The elements of a "Sequence" under `key`, or the field alone.
std::vector<JsonField> steps_of(const JsonField& field, std::string_view key) {
  if (field.is_null()) return {};
  if (field.at("type").string() != "Sequence") return {field};
  field.allow_only({"type", key});
  const JsonField list = field.at(key);
  std::vector<JsonField> steps;
  for (std::size_t i = 0; i < list.size(); ++i) {
    const std::vector<JsonField> inner = steps_of(list.at(i), key);
    steps.insert(steps.end(), inner.begin(), inner.end());
  }
  return steps;
}

/// {"String": text}, in normalizers and decoders.
std::string plain_pattern(const JsonField& pattern) {
  pattern.allow_only({"String"});
  return pattern.at("String").string();
}

TokenizerSpec::Replacement read_normalizer(const JsonField& step) {
  const std::string type = step.at("type").string();
  if (type == "Prepend") {
    step.allow_only({"type", "prepend"});
    return {"", step.at("prepend").string()};
  }
  if (type == "Replace") {
    step.allow_only({"type", "pattern", "content"});
    const std::string from = plain_pattern(step.at("pattern"));
    if (from.empty()) step.at("pattern").expected("some text");
    return {from, step.at("content").string()};
  }
  step.at("type").unsupported("Prepend or Replace");
}

SplitStep read_split(const JsonField& step) {
  step.allow_only({"type", "pattern", "behavior", "invert"});
  const JsonField pattern = step.at("pattern");
  pattern.allow_only({"Regex", "String"});
  const bool invert = step.at("invert").boolean_or(false);
  const std::string behavior = step.at("behavior").string();
  if (behavior != "Isolated" && behavior != "Removed") {
    step.at("behavior").unsupported("Isolated or Removed");
  }
  const bool removed = behavior == "Removed";
  return {.name = pattern.name(),
          .pattern = pattern.at("Regex").is_null() ? quoted_pattern(pattern.at("String").string())
                                                   : pattern.at("Regex").string(),
          .drop_matches = removed && !invert,
          .drop_others = removed && invert};
}

/// Adds what a pre-tokenizer does to `splits`; returns whether it is ByteLevel.
bool read_pre_tokenizer(const JsonField& step, std::vector<SplitStep>& splits) {
  const std::string type = step.at("type").string();
  if (type == "Split") {
    splits.push_back(read_split(step));
  } else if (type == "Digits") {
    step.allow_only({"type", "individual_digits"});
    const bool each = step.at("individual_digits").boolean_or(false);
    splits.push_back({.name = step.name(), .pattern = each ? R"(\p{N})" : R"(\p{N}+)"});
  } else if (type == "ByteLevel") {
    step.allow_only({"type", "add_prefix_space", "trim_offsets", "use_regex"});
    if (step.at("add_prefix_space").boolean_or(true)) {
      step.at("add_prefix_space").unsupported("false");
    }
    if (step.at("use_regex").boolean_or(true)) {
      splits.push_back({.name = step.name(), .pattern = std::string(kGpt2Pattern)});
    }
    return true;
  } else {
    step.at("type").unsupported("Split, Digits or ByteLevel");
  }
  return false;
}

/// Whether text is made as in vocabularies of characters: marks become spaces, <0x..> bytes.
/// Otherwise tokens are bytes. Sets `spec.strip_first_space`.
bool read_decoder(const JsonField& decoder, TokenizerSpec& spec) {
  if (decoder.is_null()) decoder.expected("ByteLevel, or a Sequence with ByteFallback");
  bool fallback = false;
  for (const JsonField& step : steps_of(decoder, "decoders")) {
    const std::string type = step.at("type").string();
    if (type == "ByteFallback") {
      fallback = true;
    } else if (type == "Replace") {
      const bool usual =
          plain_pattern(step.at("pattern")) == kSpaceMark && step.at("content").string() == " ";
      if (!usual) step.unsupported("U+2581 replaced by a space");
    } else if (type == "Strip") {
      const bool usual = step.at("content").string() == " " &&
                         step.at("start").integer(0, 1) == 1 && step.at("stop").integer(0, 1) == 0;
      if (!usual) step.unsupported("one space stripped at the start");
      spec.strip_first_space = true;
    } else if (type != "Fuse" && type != "ByteLevel") {
      step.at("type").unsupported("ByteLevel, Replace, ByteFallback, Fuse or Strip");
    }
  }
  return fallback;
}

void read_model(const JsonField& root, TokenizerSpec& spec) {
  const JsonField model = root.at("model");
  bool byte_level = false;
  for (const JsonField& step : steps_of(root.at("pre_tokenizer"), "pretokenizers")) {
    if (byte_level) step.unsupported("nothing after ByteLevel");
    byte_level = read_pre_tokenizer(step, spec.splits);
  }
  if (read_decoder(root.at("decoder"), spec) == byte_level) {
    root.at("decoder").expected("ByteLevel if and only if the pre-tokenizer is");
  }
  if (!byte_level && !model.at("byte_fallback").boolean_or(false)) {
    model.at("byte_fallback").unsupported("true, or a ByteLevel pre-tokenizer");
  }
  read_bpe(model, byte_level, spec);
}

AddedToken read_added_token(const JsonField& field) {
  field.allow_only({"id", "content", "single_word", "lstrip", "rstrip", "normalized", "special"});
  if (field.at("single_word").boolean_or(false)) field.at("single_word").unsupported("false");
  const bool special = field.at("special").boolean_or(false);
  return {.id = static_cast<std::int32_t>(field.at("id").integer(0, kMaxTokenId)),
          .content = field.at("content").string(),
          .lstrip = field.at("lstrip").boolean_or(false),
          .rstrip = field.at("rstrip").boolean_or(false),
          .normalized = field.at("normalized").boolean_or(!special),
          .special = special};
}

void read_added_tokens(const JsonField& list, TokenizerSpec& spec) {
  if (list.is_null()) return;
  for (std::size_t i = 0; i < list.size(); ++i) {
    AddedToken token = read_added_token(list.at(i));
    add_token(token.id, token.content, token.special, spec);
    spec.added.push_back(std::move(token));
  }
}

/// [{"SpecialToken": {"id": "<s>"}}, {"Sequence": {"id": "A"}}]
void read_template(const JsonField& step, TokenizerSpec& spec) {
  step.allow_only({"type", "single", "pair", "special_tokens"});
  const JsonField single = step.at("single");
  const JsonField specials = step.at("special_tokens");
  std::vector<std::int32_t>* side = &spec.prefix;
  for (std::size_t i = 0; i < single.size(); ++i) {
    const JsonField item = single.at(i);
    item.allow_only({"SpecialToken", "Sequence"});
    if (item.at("SpecialToken").is_null()) {
      side = &spec.suffix;
      continue;
    }
    const JsonField ids = specials.at(item.at("SpecialToken").at("id").string()).at("ids");
    for (std::size_t j = 0; j < ids.size(); ++j) {
      side->push_back(static_cast<std::int32_t>(ids.at(j).integer(0, kMaxTokenId)));
    }
  }
}

void read_post_processor(const JsonField& field, TokenizerSpec& spec) {
  for (const JsonField& step : steps_of(field, "processors")) {
    const std::string type = step.at("type").string();
    if (type == "TemplateProcessing") {
      read_template(step, spec);
    } else if (type != "ByteLevel") {  // which moves offsets only
      step.at("type").unsupported("TemplateProcessing or ByteLevel");
    }
  }
}

/// The id of "bos_token" or "eos_token": a string, or an object with "content".
std::optional<std::int32_t> read_named_token(const JsonField& field, const TokenizerSpec& spec) {
  if (field.is_null()) return std::nullopt;
  const std::string content =
      field.value().is_object() ? field.at("content").string() : field.string();
  for (const AddedToken& token : spec.added) {
    if (token.content == content) return token.id;
  }
  field.expected("one of the added tokens of tokenizer.json");
}

void read_config(const JsonField& config, TokenizerSpec& spec) {
  spec.bos_id = read_named_token(config.at("bos_token"), spec);
  spec.eos_id = read_named_token(config.at("eos_token"), spec);
  const JsonField add_bos = config.at("add_bos_token");
  // Llama's class goes by these two members alone; others by the post-processor if there is one.
  const bool is_llama =
      config.at("tokenizer_class").string_or("").find("Llama") != std::string::npos;
  if (is_llama && !add_bos.is_null()) {
    spec.prefix.clear();
    spec.suffix.clear();
  }
  if (spec.prefix.empty() && add_bos.boolean_or(false)) {
    if (!spec.bos_id) config.at("bos_token").expected("a token, since add_bos_token is true");
    spec.prefix = {*spec.bos_id};
  }
  if (spec.suffix.empty() && config.at("add_eos_token").boolean_or(false)) {
    if (!spec.eos_id) config.at("eos_token").expected("a token, since add_eos_token is true");
    spec.suffix = {*spec.eos_id};
  }
}

}  // namespace

TokenizerSpec read_tokenizer(const std::filesystem::path& folder) {
  const json file = parse_json_file(folder / "tokenizer.json", kMaxFileBytes, kMaxDepth);
  const JsonField root(file, "tokenizer.json");
  root.allow_only({"version", "truncation", "padding", "added_tokens", "normalizer",
                   "pre_tokenizer", "post_processor", "decoder", "model"});
  for (const char* key : {"truncation", "padding"}) {
    if (!root.at(key).is_null()) root.at(key).unsupported("null");
  }
  TokenizerSpec spec;
  for (const JsonField& step : steps_of(root.at("normalizer"), "normalizers")) {
    spec.normalizer.push_back(read_normalizer(step));
  }
  read_model(root, spec);
  read_added_tokens(root.at("added_tokens"), spec);
  read_post_processor(root.at("post_processor"), spec);
  const std::filesystem::path config_path = folder / "tokenizer_config.json";
  if (std::filesystem::exists(config_path)) {
    const json config = parse_json_file(config_path, kMaxFileBytes, kMaxDepth);
    read_config(JsonField(config, "tokenizer_config.json"), spec);
  }
  return spec;
}

}  // namespace mla::proto
