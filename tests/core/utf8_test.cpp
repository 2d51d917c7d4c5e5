#include "core/utf8.h"

#include <gtest/gtest.h>
#ifdef MLA_HAVE_RAPIDCHECK
#include <rapidcheck.h>
#include <rapidcheck/gtest.h>
#endif

namespace mla {
namespace {

std::string repaired(const std::string& bytes) {
  Utf8Stream stream;
  const std::string text = stream.push(bytes);
  return text + stream.finish();
}

TEST(Utf8, WritesWhatItReads) {
  for (const char32_t c :
       {0x0u, 0x7fu, 0x80u, 0x7ffu, 0x800u, 0xd7ffu, 0xe000u, 0xffffu, 0x10000u, 0x10ffffu}) {
    std::string text;
    append_utf8(c, text);
    EXPECT_EQ(first_code_point(text), c);
    EXPECT_EQ(first_utf8_piece(text).bytes, text.size());
    EXPECT_EQ(find_invalid_utf8(text), std::nullopt);
  }
}

TEST(Utf8, FindsWhatIsNone) {
  EXPECT_EQ(find_invalid_utf8("ab\xff"), 2u);
  EXPECT_EQ(find_invalid_utf8("\xc0\x80"), 0u);          // overlong
  EXPECT_EQ(find_invalid_utf8("a\xed\xa0\x80"), 1u);     // a surrogate
  EXPECT_EQ(find_invalid_utf8("\xf4\x90\x80\x80"), 0u);  // past U+10FFFF
  EXPECT_EQ(find_invalid_utf8("\xf0\x9f\x98"), 0u);      // cut off
  EXPECT_EQ(find_invalid_utf8("\xf0\x9f\x98\x80"), std::nullopt);
}

TEST(Utf8, ReplacesMaximalSubparts) {
  // The example of the Unicode standard, section 3.9, table 3-11.
  EXPECT_EQ(repaired("\x61\xf1\x80\x80\xe1\x80\xc2\x62\x80\x63\x80\xbf\x64"),
            "a\uFFFD\uFFFD\uFFFDb\uFFFDc\uFFFD\uFFFDd");
}

TEST(Utf8, HoldsBackAnIncompleteCharacter) {
  Utf8Stream stream;
  EXPECT_EQ(stream.push("a\xf0\x9f"), "a");
  EXPECT_EQ(stream.push("\x98"), "");
  EXPECT_EQ(stream.push("\x80z"), "😀z");
  EXPECT_EQ(stream.finish(), "");
  EXPECT_EQ(stream.push("\xe4\xb8"), "");
  EXPECT_EQ(stream.finish(), "\uFFFD");
  EXPECT_EQ(stream.push("a"), "a");
}

#ifdef MLA_HAVE_RAPIDCHECK
RC_GTEST_PROP(Utf8, TextDoesNotDependOnHowBytesAreCut, (const std::vector<std::string>& pieces)) {
  std::string whole;
  std::string text;
  Utf8Stream stream;
  for (const std::string& piece : pieces) {
    whole += piece;
    text += stream.push(piece);
  }
  text += stream.finish();
  RC_ASSERT(text == repaired(whole));
  RC_ASSERT(!find_invalid_utf8(text).has_value());
}
#endif

}  // namespace
}  // namespace mla
