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
  pool.publish(first, {}, Tokens{1, 2}, false);
  pool.publish(second, first, Tokens{3, 4}, false);
  EXPECT_THAT(pool.find_prefix(Tokens{1, 2, 3, 4, 5}, 0), ElementsAre(first, second));
  EXPECT_THAT(pool.find_prefix(Tokens{1, 2, 3}, 0), ElementsAre(first));
  EXPECT_THAT(pool.find_prefix(Tokens{1, 2, 9, 9}, 0), ElementsAre(first));
  EXPECT_THAT(pool.find_prefix(Tokens{3, 4}, 0), IsEmpty()) << "the same tokens at another place";
  EXPECT_THAT(pool.find_prefix(Tokens{1}, 0), IsEmpty());
}

TEST(PagePool, KeepsASharedPageUntilItsLastUserGivesItBack) {
  PagePool pool(1, 1);
  const std::int32_t page = pool.take();
  pool.publish(page, {}, Tokens{7}, false);
  EXPECT_THAT(pool.find_prefix(Tokens{7}, 0), ElementsAre(page));
  pool.give_back(page);
  EXPECT_EQ(pool.available(), 0);
  pool.give_back(page);
  EXPECT_EQ(pool.available(), 1);
}

TEST(PagePool, FindsPagesThatNobodyUsesUntilTheyAreTaken) {
  PagePool pool(2, 1);
  const std::int32_t page = pool.take();
  pool.publish(page, {}, Tokens{7}, false);
  pool.give_back(page);
  EXPECT_NE(pool.take(), page) << "pages without known contents go first";
  EXPECT_THAT(pool.find_prefix(Tokens{7}, 0), ElementsAre(page));
  pool.give_back(page);
  EXPECT_EQ(pool.take(), page);
  EXPECT_THAT(pool.find_prefix(Tokens{7}, 0), IsEmpty());
}

TEST(PagePool, ForgetsTheEndOfASequenceBeforeItsBeginning) {
  PagePool pool(2, 1);
  const std::int32_t first = pool.take();
  const std::int32_t second = pool.take();
  pool.publish(first, {}, Tokens{1}, false);
  pool.publish(second, first, Tokens{2}, false);
  pool.give_back(second);
  pool.give_back(first);
  EXPECT_EQ(pool.take(), second);
  EXPECT_THAT(pool.find_prefix(Tokens{1, 2}, 0), ElementsAre(first));
}

TEST(PagePool, TellsTheFormsApartThatTokensTook) {
  PagePool pool(4, 1);
  const std::int32_t as_prompt = pool.take();
  const std::int32_t after_it = pool.take();
  const std::int32_t other = pool.take();
  pool.publish(as_prompt, {}, Tokens{1}, true);
  pool.publish(after_it, as_prompt, Tokens{2}, false);
  pool.publish(other, {}, Tokens{1}, false);
  EXPECT_THAT(pool.find_prefix(Tokens{1, 2}, 1), ElementsAre(as_prompt, after_it));
  EXPECT_THAT(pool.find_prefix(Tokens{1, 2}, 2), ElementsAre(as_prompt));
  EXPECT_THAT(pool.find_prefix(Tokens{1, 2}, 0), ElementsAre(other));
}

TEST(PagePool, LetsTwoPagesHoldTheSame) {
  PagePool pool(4, 1);
  const std::int32_t a = pool.take();
  const std::int32_t b = pool.take();
  pool.publish(a, {}, Tokens{1}, false);
  pool.publish(b, {}, Tokens{1}, false);
  const std::int32_t after_b = pool.take();
  pool.publish(after_b, b, Tokens{2}, false);
  EXPECT_THAT(pool.find_prefix(Tokens{1, 2}, 0), ElementsAre(a, after_b));
}

}  // namespace
}  // namespace mla
