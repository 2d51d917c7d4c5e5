#include "core/stop_watcher.h"

#include <algorithm>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#ifdef MLA_HAVE_RAPIDCHECK
#include <rapidcheck.h>
#include <rapidcheck/gtest.h>
#endif

namespace mla {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

constexpr std::int32_t kEos[] = {100, 101};

struct Outcome {
  std::string text;
  FinishReason reason;
  std::int64_t tokens;
};

/// Pushes pieces as tokens 0, 1 ... until the request is finished.
Outcome run(const StopRules& rules, const std::vector<std::string>& pieces) {
  StopWatcher watcher(rules, kEos);
  std::string text;
  for (std::size_t i = 0; i < pieces.size() && !watcher.finished(); ++i) {
    text += watcher.push(static_cast<std::int32_t>(i), pieces[i]);
  }
  text += watcher.finish("");
  return {text, watcher.reason(), watcher.tokens()};
}

TEST(StopWatcher, EndsAtTheEndOfText) {
  StopWatcher watcher({}, kEos);
  EXPECT_EQ(watcher.push(1, "a"), "a");
  EXPECT_EQ(watcher.push(101, "<eos>"), "");
  EXPECT_EQ(watcher.reason(), FinishReason::kStop);
  EXPECT_EQ(watcher.finish("\uFFFD"), "\uFFFD");
}

TEST(StopWatcher, IgnoresTheEndOfTextWhenAsked) {
  StopWatcher watcher({.ids = {7}, .ignore_eos = true}, kEos);
  EXPECT_EQ(watcher.push(100, "x"), "x");
  EXPECT_FALSE(watcher.finished());
  watcher.push(7, "y");
  EXPECT_EQ(watcher.reason(), FinishReason::kStop);
}

TEST(StopWatcher, EndsAtMostTokens) {
  const Outcome outcome = run({.strings = {"bc!"}, .max_tokens = 2}, {"a", "bc", "d"});
  EXPECT_EQ(outcome.text, "abc");
  EXPECT_EQ(outcome.reason, FinishReason::kLength);
  EXPECT_EQ(outcome.tokens, 2);
}

TEST(StopWatcher, CutsBeforeAStopStringThatSpansTokens) {
  StopWatcher watcher({.strings = {"END"}}, kEos);
  EXPECT_EQ(watcher.push(1, "hello E"), "hello ");
  EXPECT_EQ(watcher.push(2, "N"), "");
  EXPECT_EQ(watcher.push(3, "x EN"), "ENx ");
  EXPECT_EQ(watcher.push(4, "D and more"), "");
  EXPECT_EQ(watcher.reason(), FinishReason::kStop);
  EXPECT_EQ(watcher.finish("z"), "");
}

TEST(StopWatcher, FindsAStopStringThatRepeatsItsBeginning) {
  EXPECT_EQ(run({.strings = {"aab"}}, {"a", "a", "a", "b", "c"}).text, "a");
  EXPECT_EQ(run({.strings = {"abab"}}, {"ab", "ac", "aba", "b"}).text, "abac");
}

TEST(StopWatcher, TakesTheStopStringThatIsCompleteFirst) {
  const StopRules rules{.strings = {"abcd", "bc"}};
  EXPECT_EQ(run(rules, {"xabcd"}).text, "xa");
  EXPECT_EQ(run(rules, {"x", "a", "b", "c", "d"}).text, "xa");
  EXPECT_EQ(run({.strings = {"c", "abc"}}, {"xabc"}).text, "x");
}

TEST(StopWatcher, CutsAtALineOfItsOwn) {
  const Outcome outcome = run({.strings = {"\n\n"}}, {"To be", "\n", "or", "\n\nnot"});
  EXPECT_EQ(outcome.text, "To be\nor");
  EXPECT_EQ(outcome.reason, FinishReason::kStop);
}

TEST(StopWatcher, CompletesAStopStringWithWhatWasHeldBackElsewhere) {
  StopWatcher watcher({.strings = {"a\uFFFD"}, .max_tokens = 1}, kEos);
  EXPECT_EQ(watcher.push(1, "xa"), "x");
  EXPECT_EQ(watcher.reason(), FinishReason::kLength);
  EXPECT_EQ(watcher.finish("\uFFFD"), "");
  EXPECT_EQ(watcher.reason(), FinishReason::kStop);
}

TEST(StopWatcher, StopsAtNothingBeforeTheLeastTokens) {
  StopWatcher watcher({.strings = {"b"}, .ids = {7}, .min_tokens = 2}, kEos);
  EXPECT_THAT(watcher.banned(), ElementsAre(7, 100, 101));
  EXPECT_EQ(watcher.push(1, "b"), "b");
  EXPECT_EQ(watcher.push(7, "c"), "c");
  EXPECT_FALSE(watcher.finished());
  EXPECT_THAT(watcher.banned(), IsEmpty());
  EXPECT_EQ(watcher.push(2, "db"), "d");
  EXPECT_TRUE(watcher.finished());
}

#ifdef MLA_HAVE_RAPIDCHECK
RC_GTEST_PROP(StopWatcher, TextDoesNotDependOnHowTokensCutIt, ()) {
  const auto letters = rc::gen::container<std::string>(rc::gen::element('a', 'b', 'c'));
  const std::string text = *letters;
  const auto stops = *rc::gen::container<std::vector<std::string>>(rc::gen::nonEmpty(letters));
  std::vector<std::string> single;
  std::vector<std::string> random;
  for (const char c : text) {
    single.emplace_back(1, c);
    if (random.empty() || *rc::gen::arbitrary<bool>()) random.emplace_back();
    random.back() += c;
  }
  const Outcome whole = run({.strings = stops}, {text});
  for (const auto& pieces : {single, random}) {
    const Outcome outcome = run({.strings = stops}, pieces);
    RC_ASSERT(outcome.text == whole.text);
    RC_ASSERT(outcome.reason == whole.reason || text.empty());
  }
  const auto occurs = [&](const std::string& s) { return text.find(s) != std::string::npos; };
  RC_ASSERT((whole.reason == FinishReason::kStop) == std::ranges::any_of(stops, occurs));
  for (const std::string& stop : stops) RC_ASSERT(whole.text.find(stop) == std::string::npos);
}
#endif

}  // namespace
}  // namespace mla
