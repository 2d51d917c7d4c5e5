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

/// Some pairs have nothing to say to each other; other ones with another `scale`.
std::int64_t size_for(int from, int to, int scale) {
  return (from * 7 + to * 13 + scale) % 5 * scale * 16'000;
}

std::byte content(int from, int to, int step) {
  return static_cast<std::byte>(from * 31 + to * 7 + step);
}

std::vector<Parcel> parcels(const Communicator& comm, bool sends, int scale) {
  std::vector<Parcel> parcels;
  for (int peer = 0; peer < comm.size(); ++peer) {
    const std::int64_t bytes =
        sends ? size_for(comm.rank(), peer, scale) : size_for(peer, comm.rank(), scale);
    if (peer != comm.rank() && bytes > 0) parcels.push_back({peer, bytes});
  }
  return parcels;
}

void expect_delivery(const Communicator& comm, Exchange& exchange, int scale) {
  const auto sends = parcels(comm, true, scale);
  const auto receives = parcels(comm, false, scale);
  for (int step = 0; step < 5; ++step) {
    for (std::size_t i = 0; i < sends.size(); ++i) {
      const auto message = exchange.outgoing(i);
      ASSERT_EQ(message.size(), static_cast<std::size_t>(sends[i].bytes));
      std::fill(message.begin(), message.end(), content(comm.rank(), sends[i].peer, step));
    }
    exchange.post();
    exchange.wait();
    for (std::size_t i = 0; i < receives.size(); ++i) {
      const auto message = exchange.incoming(i);
      ASSERT_EQ(message.size(), static_cast<std::size_t>(receives[i].bytes));
      const std::byte expected = content(receives[i].peer, comm.rank(), step);
      EXPECT_TRUE(
          std::all_of(message.begin(), message.end(), [=](std::byte b) { return b == expected; }))
          << "from rank " << receives[i].peer << ", step " << step;
      std::fill(message.begin(), message.end(), std::byte{0xff});
    }
    exchange.release();
  }
}

TEST(Exchange, DeliversEveryMessageToItsPeerAgainAndAgain) {
  const Communicator& comm = test_world();
  for (const ExchangeKind kind : kKinds) {
    SCOPED_TRACE(to_string(kind));
    const auto exchange = make(kind, comm, parcels(comm, true, 4), parcels(comm, false, 4));
    expect_delivery(comm, *exchange, 4);
    for (const int scale : {3, 8, 1, 7}) {
      SCOPED_TRACE(scale);
      exchange->resize(parcels(comm, true, scale), parcels(comm, false, scale));
      expect_delivery(comm, *exchange, scale);
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
