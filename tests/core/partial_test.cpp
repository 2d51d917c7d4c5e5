#include "core/partial.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include <gtest/gtest.h>

#include "tests/core/special_floats.h"

namespace mla {
namespace {

class OwnedPartial {
 public:
  OwnedPartial(std::int64_t rows, std::int64_t d_v)
      : storage_(partial_floats(rows, d_v)), rows_(rows), d_v_(d_v) {
    clear_partial(view());
  }
  PartialView view() { return partial_at(storage_.data(), rows_, d_v_); }
  const std::vector<float>& storage() const { return storage_; }

 private:
  std::vector<float> storage_;
  std::int64_t rows_;
  std::int64_t d_v_;
};

bool same_bits(const OwnedPartial& a, const OwnedPartial& b) {
  return std::memcmp(a.storage().data(), b.storage().data(), a.storage().size() * sizeof(float)) ==
         0;
}

OwnedPartial random_partial(std::int64_t rows, std::int64_t d_v, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  OwnedPartial partial(rows, d_v);
  const PartialView view = partial.view();
  for (std::int64_t row = 0; row < rows; ++row) {
    view.m_log2[row] = 20 * normal(random);
    view.l[row] = 1 + std::abs(normal(random));
  }
  for (std::int64_t i = 0; i < rows * d_v; ++i) view.o[i] = normal(random);
  return partial;
}

TEST(Partial, PartsDoNotOverlapAndStartOnCacheLines) {
  for (const std::int64_t rows : {1, 15, 16, 17, 128}) {
    for (const std::int64_t d_v : {16, 32, 512}) {
      std::vector<float> storage(partial_floats(rows, d_v));
      const PartialView view = partial_at(storage.data(), rows, d_v);
      EXPECT_GE(view.l - view.m_log2, rows);
      EXPECT_GE(view.o - view.l, rows);
      EXPECT_EQ((view.l - view.m_log2) % 16, 0);
      EXPECT_EQ((view.o - view.l) % 16, 0);
      EXPECT_LE(view.o + rows * d_v, storage.data() + storage.size());
      EXPECT_EQ(storage.size() % 16, 0U);
    }
  }
}

TEST(Partial, EmptyOnTheRightChangesNoBitWhateverLiesInIt) {
  OwnedPartial full = random_partial(5, 16, 1);
  full.view().o[3] = kNan;
  full.view().o[4] = -0.0F;
  full.view().l[1] = kInf;
  OwnedPartial empty(5, 16);
  std::fill_n(empty.view().o, 5 * 16, kNan);
  std::fill_n(empty.view().l, 5, kInf);
  OwnedPartial merged = full;
  merge_partials(merged.view(), empty.view());
  EXPECT_TRUE(same_bits(merged, full));
}

TEST(Partial, EmptyOnTheLeftGivesTheRightBitForBitWhateverLiesInIt) {
  OwnedPartial full = random_partial(5, 16, 2);
  full.view().o[3] = std::bit_cast<float>(0x7fc01234U);
  full.view().o[4] = -0.0F;
  full.view().o[5] = -kInf;
  OwnedPartial merged(5, 16);
  std::fill_n(merged.view().o, 5 * 16, kNan);
  std::fill_n(merged.view().l, 5, kInf);
  merge_partials(merged.view(), full.view());
  EXPECT_TRUE(same_bits(merged, full));
}

TEST(Partial, RowsMergeIndependently) {
  OwnedPartial a = random_partial(2, 16, 3);
  OwnedPartial b = random_partial(2, 16, 4);
  a.view().m_log2[0] = kEmptyM;
  b.view().m_log2[1] = kEmptyM;
  OwnedPartial a_before = a;
  merge_partials(a.view(), b.view());
  EXPECT_EQ(a.view().m_log2[0], b.view().m_log2[0]);
  EXPECT_EQ(a.view().l[0], b.view().l[0]);
  EXPECT_EQ(a.view().m_log2[1], a_before.view().m_log2[1]);
  EXPECT_EQ(a.view().l[1], a_before.view().l[1]);
}

TEST(Partial, MergingRescalesTheSideWithTheSmallerMaximum) {
  for (const bool larger_first : {true, false}) {
    OwnedPartial large(1, 16);
    OwnedPartial small(1, 16);
    large.view().m_log2[0] = 3;
    large.view().l[0] = 1.5F;
    std::fill_n(large.view().o, 16, 10.0F);
    small.view().m_log2[0] = 1;
    small.view().l[0] = 2;
    std::fill_n(small.view().o, 16, 4.0F);
    OwnedPartial& into = larger_first ? large : small;
    merge_partials(into.view(), larger_first ? small.view() : large.view());
    EXPECT_EQ(into.view().m_log2[0], 3);
    EXPECT_EQ(into.view().l[0], 1.5F + 2 * 0.25F);
    for (int d = 0; d < 16; ++d) EXPECT_EQ(into.view().o[d], 11);
  }
}

TEST(Partial, FarSmallerSidesVanishWithoutNan) {
  OwnedPartial a(1, 16);
  OwnedPartial b(1, 16);
  a.view().m_log2[0] = 1e30F;
  b.view().m_log2[0] = -1e30F;
  a.view().l[0] = b.view().l[0] = 1;
  std::fill_n(b.view().o, 16, 5.0F);
  merge_partials(b.view(), a.view());
  EXPECT_EQ(b.view().m_log2[0], 1e30F);
  EXPECT_EQ(b.view().l[0], 1);
  EXPECT_EQ(b.view().o[0], 0);
}

TEST(Partial, NanScoresReachTheResultFromEitherSide) {
  for (const bool nan_first : {true, false}) {
    OwnedPartial poisoned = random_partial(1, 16, 5);
    OwnedPartial clean = random_partial(1, 16, 6);
    poisoned.view().m_log2[0] = kNan;
    OwnedPartial& into = nan_first ? poisoned : clean;
    merge_partials(into.view(), nan_first ? clean.view() : poisoned.view());
    float out[16];
    finalize_out(into.view(), 0, {0, 16}, out);
    EXPECT_TRUE(std::isnan(out[0]));
    EXPECT_TRUE(std::isnan(finalize_lse(into.view(), 0)));
  }
}

TEST(Partial, MergingIsAssociativeWithinRounding) {
  for (unsigned seed = 0; seed < 50; ++seed) {
    OwnedPartial a = random_partial(4, 32, 3 * seed);
    OwnedPartial b = random_partial(4, 32, 3 * seed + 1);
    OwnedPartial c = random_partial(4, 32, 3 * seed + 2);
    OwnedPartial left = a;
    merge_partials(left.view(), b.view());
    merge_partials(left.view(), c.view());
    OwnedPartial right = b;
    merge_partials(right.view(), c.view());
    OwnedPartial both = a;
    merge_partials(both.view(), right.view());
    for (std::int64_t row = 0; row < 4; ++row) {
      EXPECT_NEAR(finalize_lse(left.view(), row), finalize_lse(both.view(), row), 1e-5);
      float out_left[32];
      float out_both[32];
      finalize_out(left.view(), row, {0, 32}, out_left);
      finalize_out(both.view(), row, {0, 32}, out_both);
      for (int d = 0; d < 32; ++d) EXPECT_NEAR(out_left[d], out_both[d], 2e-6);
    }
  }
}

TEST(Partial, AgreesWithASoftmaxInDouble) {
  std::mt19937 random(7);
  std::normal_distribution<double> normal;
  constexpr int kKeys = 64;
  OwnedPartial sum(1, 16);
  double l = 0;
  double o = 0;
  for (int key = 0; key < kKeys; ++key) {
    const auto score_log2 = static_cast<float>(8 * normal(random));
    const auto value = static_cast<float>(normal(random));
    OwnedPartial one(1, 16);
    one.view().m_log2[0] = score_log2;
    one.view().l[0] = 1;
    std::fill_n(one.view().o, 16, value);
    merge_partials(sum.view(), one.view());
    l += std::exp2(static_cast<double>(score_log2));
    o += std::exp2(static_cast<double>(score_log2)) * value;
  }
  float out[16];
  finalize_out(sum.view(), 0, {0, 16}, out);
  EXPECT_NEAR(out[0], o / l, 1e-6);
  EXPECT_NEAR(finalize_lse(sum.view(), 0), std::log(l), 1e-5);
}

TEST(Partial, RowThatSawNoKeyGivesZerosAndPlusInfinity) {
  OwnedPartial empty(2, 16);
  std::fill_n(empty.view().o, 2 * 16, kNan);
  float out[16];
  std::fill_n(out, 16, kNan);
  finalize_out(empty.view(), 1, {0, 16}, out);
  for (const float x : out) EXPECT_EQ(std::bit_cast<std::uint32_t>(x), 0U);
  EXPECT_EQ(finalize_lse(empty.view(), 1), kInf);
}

}  // namespace
}  // namespace mla
