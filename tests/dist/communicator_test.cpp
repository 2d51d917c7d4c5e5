#include "dist/communicator.h"

#include <numeric>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/dist/world.h"

namespace mla::dist {
namespace {

std::vector<std::byte> bytes_of(const std::string& text) {
  std::vector<std::byte> bytes;
  for (const char c : text) bytes.push_back(static_cast<std::byte>(c));
  return bytes;
}

TEST(Communicator, BroadcastsBytesOfAnyNumberFromAnyRoot) {
  const Communicator& comm = test_world();
  for (int root = 0; root < comm.size(); ++root) {
    for (const std::size_t length : {0, 1, 100'000}) {
      const auto message = bytes_of(std::string(length, static_cast<char>('a' + root)));
      std::vector<std::byte> bytes = comm.rank() == root ? message : bytes_of("to be replaced");
      comm.broadcast(bytes, root);
      EXPECT_EQ(bytes, message);
    }
  }
}

TEST(Communicator, GathersByRank) {
  const Communicator& comm = test_world();
  const std::vector<int> ranks = comm.all_gather(comm.rank() * 10);
  ASSERT_EQ(ranks.size(), static_cast<std::size_t>(comm.size()));
  for (int r = 0; r < comm.size(); ++r) EXPECT_EQ(ranks[r], r * 10);
}

TEST(Communicator, NodeHoldsAllRanksOfOneMachine) {
  EXPECT_EQ(test_world().node().size(), test_world().size());
}

TEST(Communicator, SelfIsOneRank) {
  EXPECT_EQ(Communicator::self().size(), 1);
  EXPECT_EQ(Communicator::self().rank(), 0);
}

TEST(Communicator, AllRanksThrowTheErrorOfTheLowestFailingRank) {
  const Communicator& comm = test_world();
  for (int lowest = 0; lowest < comm.size(); ++lowest) {
    try {
      comm.together([&] {
        if (comm.rank() >= lowest) {
          throw FormatError("file of rank " + std::to_string(comm.rank()), "x", "y");
        }
      });
      FAIL() << "nothing was thrown";
    } catch (const CollectiveError& error) {
      EXPECT_EQ(error.what(), "file of rank " + std::to_string(lowest) + ": x; expected y");
      EXPECT_EQ(error.exit_code(), ExitCode::kBadInput);
    }
  }
}

TEST(Communicator, TogetherDoesNothingElseWhenNoRankFails) {
  int calls = 0;
  test_world().together([&] { ++calls; });
  EXPECT_EQ(calls, 1);
}

TEST(Communicator, OnRootRunsOnRankZeroOnly) {
  int calls = 0;
  test_world().on_root([&] { ++calls; });
  EXPECT_EQ(calls, test_world().rank() == 0 ? 1 : 0);
}

TEST(Communicator, MemoryThatRunsOutIsAnErrorOfAllRanks) {
  EXPECT_THROW(test_world().on_root([] { throw std::bad_alloc(); }), CollectiveError);
}

}  // namespace
}  // namespace mla::dist
