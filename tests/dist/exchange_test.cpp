#include "dist/exchange.h"

#include <algorithm>
#include <string>

#include <gtest/gtest.h>

#include "core/error.h"
#include "tests/dist/world.h"

namespace mla::dist {
namespace {

constexpr ExchangeKind kKinds[] = {ExchangeKind::kP2p, ExchangeKind::kAlltoallv,
                                   ExchangeKind::kShm};

std::unique_ptr<Exchange> make(ExchangeKind kind, const Communicator& comm,
                               const std::vector<Parcel>& sends,
                               const std::vector<Parcel>& receives) {
  if (kind == ExchangeKind::kShm) return make_shm_exchange(comm, sends, receives);
  if (kind == ExchangeKind::kAlltoallv) return make_alltoallv_exchange(comm, sends, receives);
  return make_p2p_exchange(comm, sends, receives);
}

/// Some pairs have nothing to say to each other.
std::int64_t size_for(int from, int to) {
  return (from * 7 + to * 13) % 5 * 64'000;
}

std::byte content(int from, int to, int step) {
  return static_cast<std::byte>(from * 31 + to * 7 + step);
}

std::vector<Parcel> parcels(const Communicator& comm, bool sends) {
  std::vector<Parcel> parcels;
  for (int peer = 0; peer < comm.size(); ++peer) {
    const std::int64_t bytes = sends ? size_for(comm.rank(), peer) : size_for(peer, comm.rank());
    if (peer != comm.rank() && bytes > 0) parcels.push_back({peer, bytes});
  }
  return parcels;
}

TEST(Exchange, DeliversEveryMessageToItsPeerAgainAndAgain) {
  const Communicator& comm = test_world();
  const auto sends = parcels(comm, true);
  const auto receives = parcels(comm, false);
  for (const ExchangeKind kind : kKinds) {
    SCOPED_TRACE(to_string(kind));
    const auto exchange = make(kind, comm, sends, receives);
    for (int step = 0; step < 5; ++step) {
      for (std::size_t i = 0; i < sends.size(); ++i) {
        const auto message = exchange->outgoing(i);
        ASSERT_EQ(message.size(), static_cast<std::size_t>(sends[i].bytes));
        std::fill(message.begin(), message.end(), content(comm.rank(), sends[i].peer, step));
      }
      exchange->post();
      exchange->wait();
      for (std::size_t i = 0; i < receives.size(); ++i) {
        const auto message = exchange->incoming(i);
        ASSERT_EQ(message.size(), static_cast<std::size_t>(receives[i].bytes));
        const std::byte expected = content(receives[i].peer, comm.rank(), step);
        EXPECT_TRUE(
            std::all_of(message.begin(), message.end(), [=](std::byte b) { return b == expected; }))
            << "from rank " << receives[i].peer << ", step " << step;
        std::fill(message.begin(), message.end(), std::byte{0xff});
      }
      exchange->release();
    }
  }
}

TEST(Exchange, KnowsItsKindsByName) {
  for (const std::string name : {"auto", "p2p", "alltoallv", "shm", "two-level"}) {
    EXPECT_EQ(to_string(parse_exchange(name)), name);
  }
  EXPECT_THROW(parse_exchange("tcp"), InvalidArgument);
}

TEST(Exchange, KnowsWhetherSharedMemoryIsLargeEnough) {
  EXPECT_TRUE(shm_fits(test_world(), {}));
  EXPECT_FALSE(shm_fits(test_world(), {{0, std::int64_t{1} << 50}}));
}

}  // namespace
}  // namespace mla::dist
