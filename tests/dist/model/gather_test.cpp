#include "dist/model/gather.h"

#include <numeric>
#include <vector>

#include <gtest/gtest.h>

#include "tests/dist/world.h"

namespace mla::dist {
namespace {

float element(int round, std::int64_t row, std::int64_t column) {
  return static_cast<float>(round * 10000 + row * 100 + column);
}

void expect_gathered(ColumnGather::Way way, std::int64_t width, std::int64_t unit) {
  constexpr std::int64_t kMaxRows = 5;
  ColumnGather gather(test_world(), kMaxRows, width, unit, way);
  const Range own = gather.columns();
  EXPECT_EQ(own.begin % unit, 0);
  int round = 0;
  for (const std::int64_t rows : {5, 1, 3, 0, 2, 1}) {
    ++round;
    for (std::int64_t row = 0; row < rows; ++row) {
      for (std::int64_t c = own.begin; c < own.end; ++c) {
        gather.local()[row * gather.stride() + c - own.begin] = element(round, row, c);
      }
    }
    const float* const whole = gather.gather(rows);
    for (std::int64_t row = 0; row < rows; ++row) {
      for (std::int64_t c = 0; c < width; ++c) {
        ASSERT_EQ(whole[row * width + c], element(round, row, c)) << row << ", " << c;
      }
    }
  }
}

TEST(ColumnGather, BringsColumnsTogetherWithinANodeAndBetweenNodes) {
  for (const auto way : {ColumnGather::Way::kSharedOnOneNode, ColumnGather::Way::kMessages}) {
    expect_gathered(way, 17, 1);
    expect_gathered(way, 2, 1);
    expect_gathered(way, 24, 8);
    expect_gathered(way, 100, 1);
  }
}

TEST(ExchangeFloats, SendsEveryRankItsPart) {
  const Communicator& world = test_world();
  const int me = world.rank();
  std::vector<std::int64_t> sent;
  std::vector<std::int64_t> received;
  std::vector<float> send;
  std::vector<float> expected;
  for (int r = 0; r < world.size(); ++r) {
    sent.push_back(me + r);
    received.push_back(me + r);
    send.insert(send.end(), static_cast<std::size_t>(me + r), static_cast<float>(me * 100 + r));
    expected.insert(expected.end(), static_cast<std::size_t>(me + r),
                    static_cast<float>(r * 100 + me));
  }
  std::vector<float> got(expected.size());
  exchange_floats(world, sent, send.data(), received, got.data());
  EXPECT_EQ(got, expected);
}

TEST(GatherRows, PutsTheRowsOfRanksInOrder) {
  const Communicator& world = test_world();
  std::vector<std::int64_t> counts(static_cast<std::size_t>(world.size()));
  std::iota(counts.begin(), counts.end(), 0);
  const std::vector<float> mine(static_cast<std::size_t>(3 * world.rank()),
                                static_cast<float>(world.rank()));
  std::vector<float> expected;
  for (int r = 0; r < world.size(); ++r) {
    expected.insert(expected.end(), static_cast<std::size_t>(3 * r), static_cast<float>(r));
  }
  std::vector<float> all(expected.size());
  gather_rows(world, counts, 3, mine.data(), all.data());
  EXPECT_EQ(all, expected);
}

}  // namespace
}  // namespace mla::dist
