#include <functional>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "proto/perl_pattern.h"
#include "proto/token_text.h"
#include "proto/tokenizer.h"
#include "tests/support/temp_dir.h"

namespace mla::proto {
namespace {

using nlohmann::json;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::StartsWith;

const std::filesystem::path kDemo = std::filesystem::path(MLA_SOURCE_DIR) / "launch/demo/model";

/// Reads the demo model's files with merge patches on them.
TokenizerSpec read_patched(const json& patch = json::object(),
                           const json& config_patch = json::object()) {
  const TempDir folder;
  for (const auto& [name, change] :
       {std::pair("tokenizer.json", patch), std::pair("tokenizer_config.json", config_patch)}) {
    json file = json::parse(read_text(kDemo / name));
    file.merge_patch(change);
    write_file(folder / name, file.dump());
  }
  return read_tokenizer(folder.path());
}

std::string refusal(const std::string& patch) {
  return error_of([&] { read_patched(json::parse(patch)); });
}

TEST(TokenizerFile, ReadsTheDemoModel) {
  const TokenizerSpec spec = read_patched();
  EXPECT_EQ(spec.tokens.size(), 1024u);
  EXPECT_EQ(spec.bpe.merges.size(), 765u);
  EXPECT_EQ(spec.splits.size(), 3u);
  EXPECT_TRUE(spec.tokens[1021].special);
  EXPECT_THAT(spec.prefix, ElementsAre(1021));
  EXPECT_THAT(spec.suffix, IsEmpty());
}

TEST(TokenizerFile, AddsWhatTheConfigSays) {
  EXPECT_THAT(read_patched(json::object(), {{"add_bos_token", false}}).prefix, IsEmpty());
  EXPECT_THAT(read_patched(json::object(), {{"add_eos_token", true}}).suffix, ElementsAre(1022));
  EXPECT_THAT(error_of([] {
                read_patched(json::object(), {{"bos_token", "<s>"}});
              }),
              HasSubstr("tokenizer_config.json.bos_token: \"<s>\"; expected one of the added"));
  EXPECT_THAT(error_of([] {
                read_patched(json::object(), {{"bos_token", nullptr}});
              }),
              HasSubstr("tokenizer_config.json.bos_token: missing"));
}

TEST(TokenizerFile, LetsLlamasClassOverruleTheTemplate) {
  const json with_template = json::parse(R"({"post_processor": {
      "type": "TemplateProcessing",
      "single": [{"SpecialToken": {"id": "b", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
                 {"SpecialToken": {"id": "e", "type_id": 0}}],
      "pair": [],
      "special_tokens": {"b": {"id": "b", "ids": [1021]}, "e": {"id": "e", "ids": [1022, 1023]}}}})");
  const TokenizerSpec other = read_patched(with_template, {{"add_bos_token", false}});
  EXPECT_THAT(other.prefix, ElementsAre(1021));
  EXPECT_THAT(other.suffix, ElementsAre(1022, 1023));
  const TokenizerSpec llama = read_patched(
      with_template, {{"add_bos_token", false}, {"tokenizer_class", "LlamaTokenizerFast"}});
  EXPECT_THAT(llama.prefix, IsEmpty());
  EXPECT_THAT(llama.suffix, IsEmpty());
}

TEST(TokenizerFile, RefusesByNameWhatItDoesNotKnow) {
  const std::pair<const char*, const char*> cases[] = {
      {R"({"new_member": 1})", "tokenizer.json.new_member: 1"},
      {R"({"truncation": {}})", "tokenizer.json.truncation"},
      {R"({"normalizer": {"type": "NFC"}})",
       "tokenizer.json.normalizer.type: \"NFC\"; expected Pre"},
      {R"({"pre_tokenizer": {"type": "Metaspace"}})",
       "tokenizer.json.pre_tokenizer.type: \"Metaspace\""},
      {R"({"pre_tokenizer": {"pretokenizers": [{"type": "Punctuation"}]}})",
       "pre_tokenizer.pretokenizers[0].type: \"Punctuation\"; expected Split, Digits or ByteLevel"},
      {R"({"pre_tokenizer": {"pretokenizers": [
           {"type": "Split", "pattern": {"Regex": "a"}, "behavior": "MergedWithNext"}]}})",
       "pretokenizers[0].behavior: \"MergedWithNext\"; expected Isolated or Removed"},
      {R"({"pre_tokenizer": {"pretokenizers": [{"type": "ByteLevel", "add_prefix_space": true}]}})",
       "add_prefix_space: true; expected false"},
      {R"({"pre_tokenizer": null})", "tokenizer.json.decoder"},
      {R"({"decoder": {"type": "WordPiece"}})", "tokenizer.json.decoder.type: \"WordPiece\""},
      {R"({"decoder": null})", "tokenizer.json.decoder: missing"},
      {R"({"post_processor": {"type": "RobertaProcessing"}})", "post_processor.type: \"Roberta"},
      {R"({"model": {"type": "Unigram"}})", "tokenizer.json.model.type: \"Unigram\"; expected BPE"},
      {R"({"model": {"dropout": 0.1}})", "tokenizer.json.model.dropout: 0.1"},
      {R"({"model": {"end_of_word_suffix": "</w>"}})", "model.end_of_word_suffix: \"</w>\""},
      {R"({"model": {"vocab": {"a": null}, "merges": []}})", "model.vocab: no token for byte"},
      {R"({"added_tokens": [{"id": 1, "content": "x", "single_word": true}]})",
       "tokenizer.json.added_tokens[0].single_word: true"},
  };
  for (const auto& [patch, expected] : cases) EXPECT_THAT(refusal(patch), HasSubstr(expected));
}

TEST(TokenizerFile, NamesWhatIsWrong) {
  const std::pair<const char*, const char*> cases[] = {
      {R"({"model": {"vocab": {"zz": -1}}})",
       "tokenizer.json.model.vocab: -1; expected an integer"},
      {R"({"model": {"vocab": {"zz": 1e9}}})", "tokenizer.json.model.vocab: 1000000000.0"},
      {R"({"model": {"vocab": {"zz": 99999999}}})", "vocab: 99999999; expected an integer from 0"},
      {R"({"model": {"merges": [["a", "no such"]]}})",
       "model.merges[0]: 'no such'; expected a token of the vocabulary"},
      {R"({"model": {"merges": ["a b c"]}})", "merges[0]: \"a b c\"; expected two tokens"},
      {R"({"model": {"merges": [["a"]]}})", "merges[0]: an array; expected two tokens"},
      {R"({"model": 7})", "tokenizer.json.model: 7; expected an object"},
      {R"({"added_tokens": [{"id": "x", "content": "x"}]})", "added_tokens[0].id: \"x\""},
  };
  for (const auto& [patch, expected] : cases) EXPECT_THAT(refusal(patch), HasSubstr(expected));
}

TEST(TokenizerFile, NamesTheFileThatIsNoJson) {
  const TempDir folder;
  EXPECT_THAT(error_of([&] { read_tokenizer(folder.path()); }), HasSubstr("tokenizer.json"));
  write_file(folder / "tokenizer.json", std::string("{\"model\": "));
  EXPECT_THAT(error_of([&] { read_tokenizer(folder.path()); }),
              HasSubstr("tokenizer.json': parse"));
  write_file(folder / "tokenizer.json", std::string(100000, '['));
  EXPECT_THAT(error_of([&] { read_tokenizer(folder.path()); }), HasSubstr("nested too deep"));
}

TEST(PerlPattern, SpellsOutWhiteSpace) {
  EXPECT_EQ(perl_pattern(R"(\s+(?!\S)|[^\s\p{L}]\\s)", "p"),
            R"(\p{White_Space}+(?!\P{White_Space})|[^\p{White_Space}\p{L}]\\s)");
}

TEST(PerlPattern, KeepsWhatMeansTheSame) {
  for (const char* pattern : {R"([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+)", "(?i:'s|'t)",
                              R"( ?[^\r\n\p{L}]+[\r\n]*|[]a]|[^]a]|\d\x{41})"}) {
    EXPECT_EQ(perl_pattern(pattern, "p"), pattern);
  }
}

TEST(PerlPattern, RefusesWhatMeansAnotherThing) {
  for (const char* pattern : {R"([\p{L}&&[^\p{Han}]])", "[a[bc]]", R"(\h)", R"(\w+)", R"(\bx)"}) {
    EXPECT_THAT(error_of([&] { perl_pattern(pattern, "p"); }), StartsWith("p: ")) << pattern;
  }
}

TEST(TokenText, MapsCharactersToBytes) {
  EXPECT_EQ(bytes_of_token("Ġthe"), " the");
  EXPECT_EQ(bytes_of_token("Ċ"), "\n");
  EXPECT_EQ(bytes_of_token("Ã©"), "é");
  EXPECT_EQ(bytes_of_token("Ń"), "\xad");
  EXPECT_EQ(bytes_of_token(""), "");
  EXPECT_EQ(bytes_of_token("a b"), std::nullopt);
  EXPECT_EQ(bytes_of_token("<｜User｜>"), std::nullopt);
}

TEST(TokenText, ReplacesEveryOccurrence) {
  EXPECT_EQ(replace_all("aXXbX", "X", "yy"), "ayyyybyy");
  EXPECT_EQ(replace_all("", "X", "y"), "");
}

}  // namespace
}  // namespace mla::proto
