#include "dist/roll.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "dist/beat_socket.h"

namespace mla::dist {
namespace {

using testing::ElementsAre;
using testing::Optional;

constexpr Signs kComputing{.steps = 1, .phase = Phase::kCompute};
constexpr Signs kWaiting{.steps = 1, .phase = Phase::kExchange, .waits = true};
constexpr Signs kGone{.phase = Phase::kEnd};

TEST(Roll, MissesARankThatFellSilent) {
  Roll roll(3, 0);
  for (const int rank : {0, 1, 2}) roll.note(rank, kComputing, 1);
  roll.note(0, kComputing, 9);
  roll.note(1, kComputing, 9);
  EXPECT_EQ(roll.silent_rank(10, 10.5), std::nullopt);
  EXPECT_THAT(roll.silent_rank(10, 11), Optional(2));
}

TEST(Roll, MissesNobodyWhoWasNeverHeardOrHasLeft) {
  Roll roll(3, 0);
  roll.note(0, kComputing, 100);
  roll.note(2, kComputing, 1);
  roll.note(2, kGone, 2);
  EXPECT_EQ(roll.silent_rank(10, 101), std::nullopt);
  EXPECT_THAT(roll.unheard(), ElementsAre(1));
}

TEST(Roll, MissesNobodyWhileItDidNotListen) {
  Roll roll(2, 0);
  roll.note(1, kComputing, 1);
  roll.forgive(3600);
  EXPECT_EQ(roll.silent_rank(10, 3609), std::nullopt);
  EXPECT_THAT(roll.silent_rank(10, 3610), Optional(1));
  EXPECT_EQ(roll.seconds_without_progress(3610), 10);
}

TEST(Roll, TakesAnyChangeOfAnyRankForProgress) {
  Roll roll(2, 0);
  roll.note(0, kWaiting, 1);
  roll.note(1, kComputing, 1);
  roll.note(0, kWaiting, 50);
  roll.note(1, kComputing, 50);
  EXPECT_EQ(roll.seconds_without_progress(50), 49);
  roll.note(1, {.steps = 2, .phase = Phase::kCompute}, 51);
  EXPECT_EQ(roll.seconds_without_progress(52), 1);
}

TEST(Roll, TellsWhoWorksAndWhoWaits) {
  Roll roll(5, 0);
  for (const int rank : {0, 1, 3}) roll.note(rank, kWaiting, 1);
  roll.note(2, kComputing, 1);
  EXPECT_EQ(roll.who_does_what(),
            "rank 2 at work in compute, ranks 0-1,3 waiting in exchange, nothing known of rank 4");
}

TEST(BeatSocket, CarriesHeartbeatsOfItsJobOnly) {
  const BeatSocket here(42);
  const BeatSocket there(42);
  const BeatSocket stranger(43);
  for (const BeatAddress& address : here.addresses()) {
    stranger.send(address, 1, kComputing);
    there.send(address, 2, kWaiting);
  }
  here.wait(1000);
  const auto received = here.receive();
  if (!received) GTEST_SKIP() << "UDP is blocked here";
  EXPECT_EQ(received->beat.rank, 2);
  EXPECT_EQ(received->beat.signs, kWaiting);

  here.send(received->from, 0, kComputing);
  there.wait(1000);
  EXPECT_EQ(there.receive()->beat.rank, 0);
}

TEST(BeatSocket, IsWokenFromItsWait) {
  const BeatSocket socket(42);
  socket.wake();
  socket.wait(60'000);
  EXPECT_FALSE(socket.receive().has_value());
}

}  // namespace
}  // namespace mla::dist
