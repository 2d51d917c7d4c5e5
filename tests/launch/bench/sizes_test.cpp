#include "launch/bench/sizes.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#ifdef MLA_HAVE_RAPIDCHECK
#include <rapidcheck.h>
#include <rapidcheck/gtest.h>
#endif

#include "core/error.h"

namespace mla::launch::bench {
namespace {

using testing::ElementsAre;

TEST(Sizes, AreNumbersUnitsAndRanges) {
  EXPECT_THAT(parse_sizes("--x", "16,128"), ElementsAre(16, 128));
  EXPECT_THAT(parse_sizes("--x", "4k,1m"), ElementsAre(4096, 1 << 20));
  EXPECT_THAT(parse_sizes("--x", "1k..8k*2"), ElementsAre(1024, 2048, 4096, 8192));
  EXPECT_THAT(parse_sizes("--x", "16..64+16,1"), ElementsAre(16, 32, 48, 64, 1));
}

TEST(Sizes, OfARangeEndBelowItsEndIfNoneHitsIt) {
  EXPECT_THAT(parse_sizes("--x", "1..10*3"), ElementsAre(1, 3, 9));
  EXPECT_THAT(parse_sizes("--x", "5..5*2"), ElementsAre(5));
}

TEST(Sizes, SayWhatIsWrongInOneLine) {
  for (const char* text : {"", ",", "16,", "0", "-1", "k", "16x", "1..8", "8..1*2", "1..8*1",
                           "1..8*", "1..8+0", "..8*2", "1.5", "2000000000000", "99999999999999m"}) {
    try {
      parse_sizes("--heads", text);
      ADD_FAILURE() << "took '" << text << "'";
    } catch (const InvalidArgument& error) {
      EXPECT_THAT(error.what(), testing::StartsWith("--heads: '")) << text;
      EXPECT_EQ(error.exit_code(), ExitCode::kUsage);
    }
  }
}

TEST(Sizes, AreNotListedWithoutEnd) {
  EXPECT_THROW(parse_sizes("--x", "1..1m+1"), InvalidArgument);
  EXPECT_EQ(parse_sizes("--x", "1..4096+1").size(), 4096U);
}

TEST(Shapes, AreRowAndValueElements) {
  EXPECT_THAT(parse_shapes("--shape", "576/512,320/256"),
              ElementsAre(RowShape{576, 512}, RowShape{320, 256}));
  for (const char* text : {"576", "576/", "/512", "512/576", "576/500", "577/512", "576/512/1"}) {
    EXPECT_THROW(parse_shapes("--shape", text), InvalidArgument) << text;
  }
}

TEST(Dtypes, AreThoseOfCaches) {
  EXPECT_THAT(parse_dtypes("--dtype", "fp16,bf16"), ElementsAre(DType::kFp16, DType::kBf16));
  EXPECT_THROW(parse_dtypes("--dtype", "fp32"), InvalidArgument);
}

#ifdef MLA_HAVE_RAPIDCHECK

RC_GTEST_PROP(Sizes, ReadBackWhatWasWritten, ()) {
  const auto sizes = *rc::gen::nonEmpty(
      rc::gen::container<std::vector<std::int64_t>>(rc::gen::inRange<std::int64_t>(1, 1 << 30)));
  std::string text;
  for (const std::int64_t size : sizes) text.append(std::to_string(size)).append(",");
  text.pop_back();
  RC_ASSERT(parse_sizes("--x", text) == sizes);
}

RC_GTEST_PROP(Sizes, OfARangeAreEachStepUpToItsEnd, ()) {
  const auto first = *rc::gen::inRange<std::int64_t>(1, 1000);
  const auto last = *rc::gen::inRange<std::int64_t>(first, 100'000);
  const bool geometric = *rc::gen::arbitrary<bool>();
  const auto by = *rc::gen::inRange<std::int64_t>(geometric ? 2 : 100, 1000);
  const auto sizes = parse_sizes("--x", std::to_string(first) + ".." + std::to_string(last) +
                                            (geometric ? "*" : "+") + std::to_string(by));
  RC_ASSERT(sizes.front() == first);
  const auto after = [&](std::int64_t size) { return geometric ? size * by : size + by; };
  for (std::size_t i = 1; i < sizes.size(); ++i) RC_ASSERT(sizes[i] == after(sizes[i - 1]));
  RC_ASSERT(sizes.back() <= last);
  RC_ASSERT(after(sizes.back()) > last);
}

RC_GTEST_PROP(Sizes, AreGoodOrRefusedWhateverTheText, ()) {
  const auto text =
      *rc::gen::container<std::string>(rc::gen::elementOf(std::string("0123456789km.*+,-")));
  try {
    for (const std::int64_t size : parse_sizes("--x", text)) {
      RC_ASSERT(size >= 1);
      RC_ASSERT(size <= std::int64_t{1} << 40);
    }
  } catch (const InvalidArgument&) {
  }
}

#endif

}  // namespace
}  // namespace mla::launch::bench
