#include "core/page_pool.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace mla {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using Tokens = std::vector<std::int32_t>;

TEST(PagePool, GivesEveryPageOnceUntilItIsGivenBack) {
  PagePool pool(3, 4);
  const std::int32_t a = pool.take();
  const std::int32_t b = pool.take();
  const std::int32_t c = pool.take();
  EXPECT_THAT((Tokens{a, b, c}), testing::UnorderedElementsAre(0, 1, 2));
  EXPECT_EQ(pool.available(), 0);
  pool.give_back(b);
  EXPECT_EQ(pool.available(), 1);
  EXPECT_EQ(pool.take(), b);
}

TEST(PagePool, FindsTheLongestPrefixOfWholePages) {
  PagePool pool(4, 2);
  const std::int32_t first = pool.take();
  const std::int32_t second = pool.take();
  pool.publish(first, {}, Tokens{1, 2});
  pool.publish(second, first, Tokens{3, 4});
  EXPECT_THAT(pool.find_prefix(Tokens{1, 2, 3, 4, 5}), ElementsAre(first, second));
  EXPECT_THAT(pool.find_prefix(Tokens{1, 2, 3}), ElementsAre(first));
  EXPECT_THAT(pool.find_prefix(Tokens{1, 2, 9, 9}), ElementsAre(first));
  EXPECT_THAT(pool.find_prefix(Tokens{3, 4}), IsEmpty()) << "the same tokens at another place";
  EXPECT_THAT(pool.find_prefix(Tokens{1}), IsEmpty());
}

TEST(PagePool, KeepsASharedPageUntilItsLastUserGivesItBack) {
  PagePool pool(1, 1);
  const std::int32_t page = pool.take();
  pool.publish(page, {}, Tokens{7});
  EXPECT_THAT(pool.find_prefix(Tokens{7}), ElementsAre(page));
  pool.give_back(page);
  EXPECT_EQ(pool.available(), 0);
  pool.give_back(page);
  EXPECT_EQ(pool.available(), 1);
}

TEST(PagePool, FindsPagesThatNobodyUsesUntilTheyAreTaken) {
  PagePool pool(2, 1);
  const std::int32_t page = pool.take();
  pool.publish(page, {}, Tokens{7});
  pool.give_back(page);
  EXPECT_NE(pool.take(), page) << "pages without known contents go first";
  EXPECT_THAT(pool.find_prefix(Tokens{7}), ElementsAre(page));
  pool.give_back(page);
  EXPECT_EQ(pool.take(), page);
  EXPECT_THAT(pool.find_prefix(Tokens{7}), IsEmpty());
}

TEST(PagePool, ForgetsTheEndOfASequenceBeforeItsBeginning) {
  PagePool pool(2, 1);
  const std::int32_t first = pool.take();
  const std::int32_t second = pool.take();
  pool.publish(first, {}, Tokens{1});
  pool.publish(second, first, Tokens{2});
  pool.give_back(second);
  pool.give_back(first);
  EXPECT_EQ(pool.take(), second);
  EXPECT_THAT(pool.find_prefix(Tokens{1, 2}), ElementsAre(first));
}

TEST(PagePool, LetsTwoPagesHoldTheSame) {
  PagePool pool(4, 1);
  const std::int32_t a = pool.take();
  const std::int32_t b = pool.take();
  pool.publish(a, {}, Tokens{1});
  pool.publish(b, {}, Tokens{1});
  const std::int32_t after_b = pool.take();
  pool.publish(after_b, b, Tokens{2});
  EXPECT_THAT(pool.find_prefix(Tokens{1, 2}), ElementsAre(a, after_b));
}

}  // namespace
}  // namespace mla
