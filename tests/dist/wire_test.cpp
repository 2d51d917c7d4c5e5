#include "dist/wire.h"

#include <cstring>
#include <random>

#include <gtest/gtest.h>

#include "core/error.h"
#include "tests/dist/problem.h"

namespace mla::dist {
namespace {

constexpr std::int64_t kRows = 2;
constexpr std::int64_t kDv = 16;

/// A partition of two requests over two ranks, and the message that one rank sends to the other.
class WireTest : public testing::TestWithParam<WireElement> {
 protected:
  WireTest()
      : problem_({.h_q = kRows, .h_kv = 1, .d_qk = 24, .d_v = kDv}, {{1, 64 * 11}}, 1),
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

  std::vector<std::byte> pack(const MessageLabel& label,
                              const std::vector<std::vector<NodePartial>>& partials) const {
    std::vector<std::byte> message(message_bytes(batch(), label.element, items_));
    pack_message(batch(), label, items_, partials, 1, message);
    return message;
  }
  std::vector<std::byte> message() const { return pack(label_, partials_); }

  void expect_refused(std::vector<std::byte> message, const std::string& why) const {
    EXPECT_THROW(unpack_message(batch(), label_, items_, 1, message), MpiError) << why;
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

TEST_P(WireTest, CarriesPartials) {
  auto bytes = message();
  const auto unpacked = unpack_message(batch(), label_, items_, 2, bytes);
  ASSERT_EQ(unpacked.partials.size(), partials_.size());
  for (std::size_t i = 0; i < partials_.size(); ++i) {
    ASSERT_EQ(unpacked.partials[i].size(), partials_[i].size());
    for (std::size_t n = 0; n < partials_[i].size(); ++n) {
      const PartialView& sent = partials_[i][n].partial;
      const PartialView& here = unpacked.partials[i][n].partial;
      EXPECT_EQ(unpacked.partials[i][n].node, partials_[i][n].node);
      for (std::int64_t r = 0; r < kRows; ++r) {
        EXPECT_EQ(here.m_log2[r], sent.m_log2[r]);
        EXPECT_EQ(here.l[r], sent.l[r]);
      }
      for (std::int64_t d = 0; d < kRows * kDv; ++d) {
        const float rounded = to_float(to_bf16(sent.o[d]));
        EXPECT_EQ(here.o[d], GetParam() == WireElement::kFp32 ? sent.o[d] : rounded);
      }
    }
  }
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
    expect_refused(pack(other, partials_), "label");
  };
  refuses([](MessageLabel& l) { std::swap(l.from, l.to); });
  refuses([](MessageLabel& l) { ++l.from; });
  refuses([](MessageLabel& l) { ++l.to; });
  refuses([](MessageLabel& l) { ++l.hop; });
  refuses([](MessageLabel& l) { --l.sequence; });
  auto bytes = message();
  MessageLabel expected = label_;
  expected.element = GetParam() == WireElement::kFp32 ? WireElement::kBf16 : WireElement::kFp32;
  EXPECT_THROW(unpack_message(batch(), expected, items_, 1, bytes), MpiError);
}

TEST_P(WireTest, RefusesToPackTooFewOrTooManyPartials) {
  auto fewer = partials_;
  fewer[0].pop_back();
  EXPECT_THROW(pack(label_, fewer), MpiError);
  auto twice = partials_;
  twice[0].push_back(twice[0].back());
  EXPECT_THROW(pack(label_, twice), MpiError);
}

TEST_P(WireTest, RefusesNodesInOtherPlaces) {
  std::vector<WireItem> others = items_;
  for (WireItem& item : others) ++item.item.request;
  auto bytes = message();
  EXPECT_THROW(unpack_message(batch(), label_, others, 1, bytes), MpiError);
}

}  // namespace
}  // namespace mla::dist
