#include "dist/exchange.h"

#include <algorithm>
#include <cstring>

#include <gtest/gtest.h>

#include "dist/wire.h"
#include "tests/dist/problem.h"
#include "tests/dist/world.h"

namespace mla::dist {
namespace {

std::int64_t size_for(int from, int to) {
  return (from * 7 + to * 13) % 5 * 1000;
}

TEST(Exchange, DeliversEveryMessageToItsPeer) {
  const Communicator& comm = test_world();
  std::vector<Message> outgoing;
  std::vector<Incoming> incoming;
  for (int peer = 0; peer < comm.size(); ++peer) {
    if (peer == comm.rank()) continue;
    Message message{peer, AlignedBuffer<std::byte>(size_for(comm.rank(), peer))};
    std::fill_n(message.bytes.data(), message.bytes.size(), static_cast<std::byte>(comm.rank()));
    outgoing.push_back(std::move(message));
    incoming.push_back({peer, size_for(peer, comm.rank())});
  }
  const auto received = exchange(comm, outgoing, incoming);
  ASSERT_EQ(received.size(), incoming.size());
  for (std::size_t i = 0; i < received.size(); ++i) {
    EXPECT_EQ(received[i].peer, incoming[i].peer);
    EXPECT_EQ(static_cast<std::int64_t>(received[i].bytes.size()), incoming[i].bytes);
    for (std::size_t b = 0; b < received[i].bytes.size(); ++b) {
      ASSERT_EQ(received[i].bytes.data()[b], static_cast<std::byte>(received[i].peer));
    }
  }
}

/// A partition of one request over two ranks, and the message that one sends to its owner.
class WireTest : public testing::Test {
 protected:
  WireTest()
      : problem_({.h_q = 2, .h_kv = 1, .d_qk = 24, .d_v = 16}, {{1, 64 * 11}}, 1),
        partition_(make_partition(problem_.batch(), {.kind = ShardMode::Kind::kKv}, 2)),
        owner_(partition_.ownerships[0].owner),
        items_(wire_items(problem_.batch(), partition_, 1 - owner_, owner_)) {}

  Message message() const {
    MessagePacker packer(problem_.batch(), items_, owner_);
    std::vector<float> values(partial_floats(2, 16));
    float next = 0;
    for (const WireItem& item : items_) {
      for (const TreeNode node : item.nodes) {
        for (float& value : values) value = ++next;
        packer.add(item.item, {node, partial_at(values.data(), 2, 16)});
      }
    }
    return packer.finish();
  }

  Problem problem_;
  Partition partition_;
  int owner_;
  std::vector<WireItem> items_;
};

TEST_F(WireTest, CarriesPartialsUnchanged) {
  Message m = message();
  const auto items = unpack_message(problem_.batch(), items_, m);
  ASSERT_EQ(items.size(), items_.size());
  float first = 0;
  for (const NodePartial& node : items[0]) {
    EXPECT_EQ(node.partial.m_log2[0], first + 1);
    EXPECT_EQ(node.partial.l[1], first + 18);
    EXPECT_EQ(node.partial.o[31], first + 64);
    first += 64;
  }
}

TEST_F(WireTest, NothingTravelsToOneself) {
  EXPECT_TRUE(wire_items(problem_.batch(), partition_, owner_, owner_).empty());
  EXPECT_EQ(message_bytes(problem_.batch(), {}), 0);
}

TEST_F(WireTest, RefusesAMessageWithAnyWrongHeaderByte) {
  constexpr std::size_t kHeaders = 32 + 64;  // of the message and of its first node
  for (std::size_t i = 0; i < kHeaders; ++i) {
    Message m = message();
    m.bytes.data()[i] ^= std::byte{0x10};
    EXPECT_THROW(unpack_message(problem_.batch(), items_, m), MpiError) << "byte " << i;
  }
}

TEST_F(WireTest, RefusesADroppedPartial) {
  MessagePacker packer(problem_.batch(), items_, owner_);
  EXPECT_THROW(packer.finish(), MpiError);
}

TEST_F(WireTest, RefusesAPartialTooMany) {
  std::vector<float> values(partial_floats(2, 16));
  MessagePacker packer(problem_.batch(), items_, owner_);
  const auto add_first = [&] {
    packer.add(items_[0].item, {items_[0].nodes[0], partial_at(values.data(), 2, 16)});
  };
  for (std::size_t i = 0; i < items_[0].nodes.size(); ++i) add_first();
  EXPECT_THROW(add_first(), MpiError);
}

}  // namespace
}  // namespace mla::dist
