#include "launch/bench/pool.h"

#include <algorithm>
#include <set>

#include <gtest/gtest.h>
#ifdef MLA_HAVE_RAPIDCHECK
#include <rapidcheck.h>
#include <rapidcheck/gtest.h>
#endif

namespace mla::launch::bench {
namespace {

TEST(Pool, IsFullOfNumbersOfItsDtype) {
  Pool pool(1 << 20);
  for (const DType dtype : {DType::kBf16, DType::kFp16}) {
    pool.fill(dtype);
    float least = 0;
    float most = 0;
    for (const std::uint16_t bits : pool.elements()) {
      const float x = to_float(dtype, bits);
      least = std::min(least, x);
      most = std::max(most, x);
    }
    EXPECT_NEAR(least, -0.25, 0.01);
    EXPECT_NEAR(most, 0.25, 0.01);
  }
}

TEST(PageDealer, DealsEveryPageBeforeOneComesAgain) {
  PageDealer dealer(10);
  for (int round = 0; round < 3; ++round) {
    std::set<std::int32_t> seen;
    for (const std::int64_t count : {3, 3, 4}) {
      const std::int32_t* pages = dealer.deal(count);
      seen.insert(pages, pages + count);
    }
    EXPECT_EQ(seen.size(), 10U);
  }
}

#ifdef MLA_HAVE_RAPIDCHECK

RC_GTEST_PROP(PageDealer, NeverRepeatsAPageWithinARoundOfAll, ()) {
  const auto pages = *rc::gen::inRange<std::int64_t>(1, 200);
  PageDealer dealer(pages);
  std::vector<std::int32_t> dealt;
  while (static_cast<std::int64_t>(dealt.size()) < 4 * pages) {
    const auto count = *rc::gen::inRange<std::int64_t>(1, pages + 1);
    const std::int32_t* const run = dealer.deal(count);
    dealt.insert(dealt.end(), run, run + count);
  }
  // All rounds hold all pages if the first does and each page comes back after just as many.
  const std::set<std::int32_t> round(dealt.begin(), dealt.begin() + pages);
  RC_ASSERT(static_cast<std::int64_t>(round.size()) == pages);
  RC_ASSERT(*round.begin() == 0);
  RC_ASSERT(std::equal(dealt.begin() + pages, dealt.end(), dealt.begin()));
}

#endif

}  // namespace
}  // namespace mla::launch::bench
