#include "launch/affinity.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "launch/topology.h"

namespace mla::launch {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

/// A rank that may use the cores [begin, end).
RankUse rank_on(int begin, int end, int threads = 0) {
  RankUse use{.cores = {}, .threads = threads};
  for (int core = begin; core < end; ++core) use.cores.set(static_cast<std::size_t>(core));
  return use;
}

TEST(FairThreads, AreTheCoresOfARankThatIsBoundAlone) {
  EXPECT_EQ(fair_threads({rank_on(0, 8), rank_on(8, 12)}, 0), 8);
  EXPECT_EQ(fair_threads({rank_on(0, 8), rank_on(8, 12)}, 1), 4);
}

TEST(FairThreads, DivideCoresThatRanksShare) {
  EXPECT_EQ(fair_threads({rank_on(0, 16), rank_on(0, 16), rank_on(0, 16)}, 2), 5);
  EXPECT_EQ(fair_threads({rank_on(0, 8), rank_on(0, 8), rank_on(8, 16), rank_on(8, 16)}, 3), 4);
}

TEST(FairThreads, AreNeverNone) {
  EXPECT_EQ(fair_threads(std::vector<RankUse>(7, rank_on(0, 2)), 6), 1);
  EXPECT_EQ(fair_threads({RankUse{}}, 0), 1);
}

TEST(CoresToBind, AreTheFirstOfARankThatIsAlone) {
  EXPECT_THAT(cores_to_bind({rank_on(4, 8, 4)}, 0), ElementsAre(0, 1, 2, 3));
  EXPECT_THAT(cores_to_bind({rank_on(4, 8, 3)}, 0), ElementsAre(0, 1, 2));
}

TEST(CoresToBind, FollowOneAnotherWhereRanksShareCores) {
  const std::vector<RankUse> ranks{rank_on(0, 6, 2), rank_on(0, 6, 1), rank_on(0, 6, 2)};
  EXPECT_THAT(cores_to_bind(ranks, 0), ElementsAre(0, 1));
  EXPECT_THAT(cores_to_bind(ranks, 1), ElementsAre(2));
  EXPECT_THAT(cores_to_bind(ranks, 2), ElementsAre(3, 4));
}

TEST(CoresToBind, AreNoneWhereThreadsAreBetterLeftAlone) {
  EXPECT_THAT(cores_to_bind({rank_on(0, 2, 3)}, 0), IsEmpty());  // more threads than cores
  EXPECT_THAT(cores_to_bind({rank_on(0, 4, 2)}, 0), IsEmpty());  // room for another job
  EXPECT_THAT(cores_to_bind({rank_on(0, 4, 2), rank_on(2, 6, 2)}, 0), IsEmpty());
  EXPECT_THAT(cores_to_bind({RankUse{}}, 0), IsEmpty());
}

TEST(Topology, HasACoreToRunOnAndBindsToIt) {
  const Topology& topology = this_topology();
  ASSERT_FALSE(topology.cores.empty());
  for (const Core& core : topology.cores) EXPECT_FALSE(core.cpus.empty());
  bind_this_thread(topology.cores.back());
}

}  // namespace
}  // namespace mla::launch
