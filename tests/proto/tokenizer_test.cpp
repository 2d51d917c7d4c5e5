#include "proto/tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>
#ifdef MLA_HAVE_RAPIDCHECK
#include <rapidcheck.h>
#include <rapidcheck/gtest.h>
#endif

#include "tests/support/temp_dir.h"

namespace mla::proto {
namespace {

using nlohmann::json;
using testing::ElementsAre;
using testing::HasSubstr;

const std::filesystem::path kDemoModel =
    std::filesystem::path(MLA_SOURCE_DIR) / "launch/demo/model";

const Tokenizer& demo() {
  static const Tokenizer tokenizer(read_tokenizer(kDemoModel));
  return tokenizer;
}

bool tokenizes_text() {
  return exit_code_of([] { demo().encode("a", AddSpecial::kNo); }) == ExitCode::kDone;
}

#define MLA_SKIP_WITHOUT_PCRE2() \
  if (!tokenizes_text()) GTEST_SKIP() << "this build has no PCRE2"

json read_json(const std::filesystem::path& path) {
  return json::parse(read_text(path));
}

/// Expects that texts become the ids of `cases`, and the ids the texts.
void expect_cases(const Tokenizer& tokenizer, const json& cases, AddSpecial add_special) {
  ASSERT_FALSE(cases.empty());
  for (const json& example : cases) {
    const auto text = example["text"].get<std::string>();
    const auto ids = example["ids"].get<std::vector<std::int32_t>>();
    EXPECT_EQ(tokenizer.encode(text, add_special), ids) << text;
    EXPECT_EQ(tokenizer.decode(ids), example["decoded"].get<std::string>()) << text;
  }
}

TEST(Tokenizer, AgreesWithTransformersOnTheDemoModel) {
  MLA_SKIP_WITHOUT_PCRE2();
  const json golden = read_json(kDemoModel / "golden.json");
  expect_cases(demo(), golden["tokenizer"], AddSpecial::kNo);
  for (const json& example : golden["greedy"]) {
    EXPECT_EQ(demo().encode(example["prompt"].get<std::string>(), AddSpecial::kYes),
              example["prompt_ids"].get<std::vector<std::int32_t>>());
  }
}

TEST(Tokenizer, AgreesWithHuggingFaceOnEveryKind) {
  MLA_SKIP_WITHOUT_PCRE2();
  const std::filesystem::path source = MLA_SOURCE_DIR;
  for (const json& kind : read_json(source / "tests/data/tokenizer/golden.json")) {
    SCOPED_TRACE(kind["name"].get<std::string>());
    json spec = read_json(kDemoModel / "tokenizer.json");
    if (kind.contains("tokenizer")) spec = kind["tokenizer"];
    if (kind.contains("merge_patch")) spec.merge_patch(kind["merge_patch"]);
    const TempDir folder;
    write_file(folder / "tokenizer.json", spec.dump());
    expect_cases(Tokenizer(read_tokenizer(folder.path())), kind["cases"], AddSpecial::kYes);
  }
}

TEST(Tokenizer, AddsTheBeginOfTextWhenAsked) {
  MLA_SKIP_WITHOUT_PCRE2();
  EXPECT_THAT(demo().encode("", AddSpecial::kYes), ElementsAre(1021));
  EXPECT_THAT(demo().encode("", AddSpecial::kNo), ElementsAre());
  EXPECT_EQ(demo().bos_id(), 1021);
  EXPECT_EQ(demo().eos_id(), 1022);
  EXPECT_EQ(demo().size(), 1024);
}

TEST(Tokenizer, SaysWhichByteIsNoText) {
  EXPECT_THAT(error_of([] { demo().encode("ab\xff", AddSpecial::kNo); }),
              HasSubstr("prompt: byte 2 (0xff); expected text in UTF-8"));
}

TEST(Tokenizer, EncodesLongWordsInLittleTime) {
  MLA_SKIP_WITHOUT_PCRE2();
  // One word each; in quadratic time one of them would take hours.
  for (const std::string unit : {"a", "the", "\n", "ha"}) {
    std::string text;
    while (text.size() < 1'000'000) text += unit;
    EXPECT_EQ(demo().decode(demo().encode(text, AddSpecial::kNo)), text);
  }
}

TEST(Tokenizer, IgnoresIdsThatAreNoToken) {
  const std::vector<std::int32_t> ids{-1, 0, 1024, 1 << 30, 1};
  EXPECT_EQ(demo().decode(ids), "!\"");
}

TEST(Tokenizer, DecodesWithoutPcre2) {
  EXPECT_EQ(demo().token_bytes(220), " ");
  EXPECT_EQ(demo().decode(std::vector<std::int32_t>{1021, 6, 40, 1022}), "'I");
}

TEST(TextStream, HoldsBackPartsOfCharacters) {
  MLA_SKIP_WITHOUT_PCRE2();
  const std::vector<std::int32_t> ids = demo().encode("🙂!", AddSpecial::kNo);
  TextStream stream(demo());
  std::vector<std::string> pieces;
  for (const std::int32_t id : ids) pieces.push_back(stream.push(id));
  EXPECT_THAT(pieces, ElementsAre("", "", "", "🙂", "!"));
  stream.push(ids[0]);
  EXPECT_EQ(stream.finish(), "\uFFFD");
}

#ifdef MLA_HAVE_RAPIDCHECK
/// Text of all kinds of characters.
rc::Gen<std::string> some_text() {
  const auto character = rc::gen::oneOf(rc::gen::inRange<std::uint32_t>(0x20, 0x7f),
                                        rc::gen::inRange<std::uint32_t>(0, 0x3100),
                                        rc::gen::inRange<std::uint32_t>(0xe000, 0x110000),
                                        rc::gen::element<std::uint32_t>(9, 10, 32));
  return rc::gen::map(rc::gen::container<std::vector<std::uint32_t>>(character),
                      [](const std::vector<std::uint32_t>& characters) {
                        std::string text;
                        for (const std::uint32_t c : characters) append_utf8(c, text);
                        return text;
                      });
}

RC_GTEST_PROP(Tokenizer, GivesEveryTextBack, ()) {
  if (!tokenizes_text()) return;
  const std::string text = *some_text();
  const auto ids = demo().encode(text, AddSpecial::kYes);
  RC_ASSERT(demo().decode(ids) == text);
}

RC_GTEST_PROP(TextStream, TextIsThatOfTheWhole, ()) {
  // Any ids at all: most of them are no UTF-8 together.
  const auto ids =
      *rc::gen::container<std::vector<std::int32_t>>(rc::gen::inRange<std::int32_t>(-2, 1030));
  TextStream stream(demo());
  std::string bytes;
  std::string text;
  for (const std::int32_t id : ids) {
    if (!demo().is_special(id)) bytes += demo().token_bytes(id);
    text += stream.push(id);
    RC_ASSERT(!find_invalid_utf8(text).has_value());
  }
  text += stream.finish();
  RC_ASSERT(text == demo().decode(ids));
  if (!find_invalid_utf8(bytes)) RC_ASSERT(text == bytes);
}
#endif

}  // namespace
}  // namespace mla::proto
