#include "dist/wire.h"

#include <cstring>
#include <random>

#include <gtest/gtest.h>

#include "core/error.h"
#include "tests/dist/problem.h"

namespace mla::dist {
namespace {

constexpr std::int64_t kRows = 19;  // a block and a longer one
constexpr std::int64_t kDv = 16;

/// A partition of two requests over two ranks, and the message that one rank sends to the other.
class WireTest : public testing::TestWithParam<WireElement> {
 protected:
  WireTest()
      : problem_({.h_q = 1, .h_kv = 1, .d_qk = 24, .d_v = kDv}, {{kRows, 64 * 11}}, 1),
        partition_(make_partition(problem_.batch(), {.kind = ShardMode::Kind::kKv}, 2)) {
    const int owner = partition_.ownerships[0].owner;
    const Hop hop = direct_hop(problem_.batch(), partition_, owner);
    items_ = hop.receives.at(0).items;
    label_ = {.from = 1 - owner, .to = owner, .hop = 0, .sequence = 5, .element = GetParam()};
    float next = 0;
    for (const WireItem& item : items_) {
      std::vector<NodePartial>& nodes = partials_.emplace_back();
      for (const TreeNode node : item.nodes) {
        std::vector<float>& values = values_.emplace_back(partial_floats(kRows, kDv));
        const PartialView partial = partial_at(values.data(), kRows, kDv);
        for (std::int64_t r = 0; r < kRows; ++r) partial.m_log2[r] = next += 0.25F;
        for (std::int64_t r = 0; r < kRows; ++r) partial.l[r] = next += 0.25F;
        for (std::int64_t i = 0; i < kRows * kDv; ++i) partial.o[i] = next += 0.25F;
        nodes.push_back({node, partial});
      }
    }
  }

  const Batch& batch() const { return problem_.batch(); }

  /// Visits the places of all records.
  template <class Visit>
  void for_each_record(Visit visit) const {
    for (std::size_t i = 0; i < items_.size(); ++i) {
      for (std::int64_t b = 0; b < count_blocks(items_[i].item.rows.size()); ++b) {
        for (std::size_t n = 0; n < items_[i].nodes.size(); ++n) visit(Message::Place{i, b, n});
      }
    }
  }

  PartialView sent(Message::Place place) const {
    return rows_of(partials_[place.item][place.node].partial, rows_of_block(place.block, kRows));
  }

  std::vector<std::byte> pack(const MessageLabel& label) const {
    std::vector<std::byte> bytes(message_bytes(batch(), label.element, items_));
    Message message(batch(), label, items_);
    message.place_in(bytes, label.sequence);
    message.write_header();
    for_each_record([&](Message::Place place) { message.write(place, sent(place)); });
    return bytes;
  }
  std::vector<std::byte> message() const { return pack(label_); }

  /// @throws MpiError as a receiver does that expects a message of `label` and `items`
  void check(const MessageLabel& label, std::span<const WireItem> items,
             std::span<std::byte> bytes) const {
    Message message(batch(), label, items);
    message.place_in(bytes, label.sequence);
    message.check_header();
    for_each_record([&](Message::Place place) {
      if (!message.is_sound(place)) message.refuse(place);
    });
  }

  void expect_refused(std::vector<std::byte> message, const std::string& why) const {
    EXPECT_THROW(check(label_, items_, message), MpiError) << why;
  }

  Problem problem_;
  Partition partition_;
  std::vector<WireItem> items_;
  MessageLabel label_;
  std::vector<std::vector<float>> values_;
  std::vector<std::vector<NodePartial>> partials_;
};

INSTANTIATE_TEST_SUITE_P(Elements, WireTest,
                         testing::Values(WireElement::kFp32, WireElement::kBf16),
                         [](const auto& suite) {
                           return suite.param == WireElement::kFp32 ? "Fp32" : "Bf16";
                         });

void expect_same(const PartialView& here, const PartialView& sent, bool rounded) {
  ASSERT_EQ(here.rows, sent.rows);
  for (std::int64_t r = 0; r < sent.rows; ++r) {
    EXPECT_EQ(here.m_log2[r], sent.m_log2[r]);
    EXPECT_EQ(here.l[r], sent.l[r]);
  }
  for (std::int64_t i = 0; i < sent.rows * kDv; ++i) {
    EXPECT_EQ(here.o[i], rounded ? to_float(to_bf16(sent.o[i])) : sent.o[i]);
  }
}

TEST_P(WireTest, CarriesPartials) {
  auto bytes = message();
  Message message(batch(), label_, items_);
  message.place_in(bytes, label_.sequence);
  message.check_header();
  std::vector<float> room(partial_floats(most_rows_of_block(kRows), kDv));
  int records = 0;
  for_each_record([&](Message::Place place) {
    ++records;
    EXPECT_TRUE(message.is_sound(place));
    const bool rounded = GetParam() != WireElement::kFp32;
    const PartialView copy = partial_at(room.data(), sent(place).rows, kDv);
    expect_same(message.open(place, copy), sent(place), rounded);
    if (!rounded) expect_same(message.open(place, {}), sent(place), false);
  });
  EXPECT_GE(records, 2 * count_blocks(kRows));
}

TEST_P(WireTest, DetectsEveryFlippedBit) {
  std::mt19937_64 random(1);
  const std::vector<std::byte> sent = message();
  for (int flip = 0; flip < 10'000; ++flip) {
    std::vector<std::byte> damaged = sent;
    const auto bit = random() % (sent.size() * 8);
    damaged[bit / 8] ^= std::byte{1} << bit % 8;
    expect_refused(std::move(damaged), "bit " + std::to_string(bit));
  }
}

TEST_P(WireTest, RefusesPartialsOfAnotherBase) {
  auto bytes = message();
  constexpr std::size_t kExponentBase = 12;  // after the magic and the element's size
  ASSERT_EQ(bytes[kExponentBase], std::byte{2});
  bytes[kExponentBase] = std::byte{3};
  expect_refused(std::move(bytes), "base");
}

TEST_P(WireTest, RefusesMessagesOfOtherRanksHopsStepsAndTypes) {
  const auto refuses = [&](auto change) {
    MessageLabel other = label_;
    change(other);
    expect_refused(pack(other), "label");
  };
  refuses([](MessageLabel& l) { std::swap(l.from, l.to); });
  refuses([](MessageLabel& l) { ++l.from; });
  refuses([](MessageLabel& l) { ++l.to; });
  refuses([](MessageLabel& l) { ++l.hop; });
  refuses([](MessageLabel& l) { --l.sequence; });
  auto bytes = message();
  MessageLabel expected = label_;
  expected.element = GetParam() == WireElement::kFp32 ? WireElement::kBf16 : WireElement::kFp32;
  EXPECT_THROW(check(expected, items_, bytes), MpiError);
}

TEST_P(WireTest, RefusesNodesInOtherPlaces) {
  std::vector<WireItem> others = items_;
  for (WireItem& item : others) ++item.item.request;
  auto bytes = message();
  EXPECT_THROW(check(label_, others, bytes), MpiError);
}

}  // namespace
}  // namespace mla::dist
