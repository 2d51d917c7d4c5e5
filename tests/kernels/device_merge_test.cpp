// Merging on a GPU against merging on the host. Without a GPU the tests skip and say so.

#include "tests/kernels/device_merge.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include <gtest/gtest.h>

#include "core/partial_fold.h"
#include "kernels/cuda/runtime.h"

namespace mla::test {
namespace {

using namespace kernels::cuda;

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr std::int32_t kRowBegin = 6;  // of the request's rows
constexpr std::int32_t kHeads = 4;

bool same_bits(const float* a, const float* b, std::int64_t n) {
  return std::memcmp(a, b, static_cast<std::size_t>(n) * sizeof(float)) == 0;
}

struct Case {
  int count = 1;
  int rows = 1;
  int d_v = 16;
  int blocks = 1;
  int threads = 128;
  bool exact = true;
  bool into_node = false;
};

std::ostream& operator<<(std::ostream& out, const Case& c) {
  return out << c.count << " partials of " << c.rows << " x " << c.d_v << ", " << c.blocks
             << " blocks of " << c.threads << (c.exact ? ", exact" : ", fast")
             << (c.into_node ? ", into a node" : "");
}

/// Random partials in a buffer laid out as a plan's, all else NaN.
class MergeProblem {
 public:
  MergeProblem(const Case& c, unsigned seed) : case_(c) {
    const std::int32_t layout = c.rows + 5;
    merge_.first = {64, layout, 2};
    merge_.stride = partial_floats(layout, c.d_v) + 16;
    const std::int64_t end = 64 + c.count * merge_.stride;
    if (c.into_node) merge_.node = {end, c.rows + 9, 4};
    merge_.out = 8;
    merge_.lse = 3;
    merge_.heads = kHeads;
    merge_.row_begin = kRowBegin;
    merge_.rows = c.rows;
    merge_.count = c.count;
    merge_.blocks = c.blocks;
    partials_.assign(end + partial_floats(c.rows + 9, c.d_v), kNan);
    args_.d_v = c.d_v;
    args_.exact = c.exact;
    args_.out_type = OutType::kFp32;
    args_.out_head_stride = c.d_v + 4;
    args_.out_token_stride = kHeads * (c.d_v + 4) + 8;
    args_.lse_token_stride = kHeads;
    out_.assign(merge_.out + (kRowBegin + c.rows) * (c.d_v + 12), kNan);
    lse_.assign(merge_.lse + kRowBegin + c.rows + kHeads, kNan);
    fill(seed);
  }

  void run() {
    const auto bytes = [](const auto& v) { return static_cast<std::int64_t>(v.size() * 4); };
    const std::vector<std::uint32_t> zeros(2);
    const DeviceBuffer partials(bytes(partials_), "partials");
    const DeviceBuffer out(bytes(out_), "out");
    const DeviceBuffer lse(bytes(lse_), "lse");
    const DeviceBuffer merges(sizeof(Merge), "merges");
    const DeviceBuffer counters(8, "counters");
    const Stream stream;
    stream.upload(partials.data(), partials_.data(), bytes(partials_));
    stream.upload(out.data(), out_.data(), bytes(out_));
    stream.upload(lse.data(), lse_.data(), bytes(lse_));
    stream.upload(merges.data(), &merge_, sizeof(Merge));
    stream.upload(counters.data(), zeros.data(), 8);
    args_.partials = partials.as<float>();
    args_.out = out.data();
    args_.lse = lse.as<float>();
    args_.merges = merges.as<Merge>();
    args_.counters = counters.as<std::uint32_t>();
    check_cuda(launch_merge(args_, 0, case_.blocks, case_.threads, stream.get()), "launch");
    after_ = partials_;
    counters_.assign(2, 1);
    stream.download(after_.data(), partials.data(), bytes(partials_));
    stream.download(out_.data(), out.data(), bytes(out_));
    stream.download(lse_.data(), lse.data(), bytes(lse_));
    stream.download(counters_.data(), counters.data(), 8);
    stream.synchronise();
  }

  /// Folds the same partials on the host and compares row by row.
  void check() {
    EXPECT_EQ(counters_, std::vector<std::uint32_t>(2));
    std::vector<float> copy = partials_;
    std::vector<NodePartial> nodes;
    for (int p = 0; p < case_.count; ++p) nodes.push_back({{0, p}, leaf(copy, p)});
    fold_partials(nodes, case_.count);
    ASSERT_EQ(nodes.size(), 1U);
    for (int row = 0; row < case_.rows; ++row) check_row(nodes[0].partial, row);
  }

 private:
  PartialView leaf(std::vector<float>& storage, int p) const {
    const PartialView all = partial_at(storage.data() + merge_.first.offset + p * merge_.stride,
                                       merge_.first.rows, case_.d_v);
    return rows_of(all, {merge_.first.row_begin, merge_.first.row_begin + case_.rows});
  }

  void fill(unsigned seed) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal;
    for (int p = 0; p < case_.count; ++p) {
      const PartialView view = leaf(partials_, p);
      for (int row = 0; row < case_.rows; ++row) {
        const bool empty = random() % 6 == 0 || row == 7;
        view.m_log2[row] = empty ? kEmptyM : random() % 9 == 0 ? 3.0F : 20 * normal(random);
        view.l[row] = empty ? 0.0F : 1 + std::abs(normal(random));
        for (std::int64_t d = 0; d < case_.d_v; ++d) {
          const float value = random() % 50 == 0 ? -0.0F : normal(random);
          view.o[row * case_.d_v + d] = empty ? 0.0F : value;
        }
      }
    }
  }

  void check_row(const PartialView& root, std::int64_t row) {
    const std::int64_t place = kRowBegin + row;
    std::vector<float> expected(root.o + row * case_.d_v, root.o + (row + 1) * case_.d_v);
    if (case_.into_node) {
      const PartialView all =
          partial_at(after_.data() + merge_.node.offset, merge_.node.rows, case_.d_v);
      const PartialView node = rows_of(all, {merge_.node.row_begin, merge_.node.rows});
      expect_equal(node.o + row * case_.d_v, expected);
      expect_equal(node.m_log2 + row, {root.m_log2[row]});
      expect_equal(node.l + row, {root.l[row]});
    } else {
      finalize_out(root, row, {0, case_.d_v}, expected.data());
      expect_equal(&out_[merge_.out + place / kHeads * args_.out_token_stride +
                         place % kHeads * args_.out_head_stride],
                   expected);
      expect_equal(&lse_[merge_.lse + place], {finalize_lse(root, row)});
    }
  }

  void expect_equal(const float* values, const std::vector<float>& expected) const {
    if (case_.exact) {
      EXPECT_TRUE(same_bits(values, expected.data(), std::ssize(expected)));
      return;
    }
    for (std::size_t i = 0; i < expected.size(); ++i) {
      if (values[i] == expected[i]) continue;  // infinities
      EXPECT_NEAR(values[i], expected[i], 1e-5F * std::max(1.0F, std::abs(expected[i])));
    }
  }

  Case case_;
  Merge merge_;
  DecodeArgs args_;
  std::vector<float> partials_;
  std::vector<float> after_;
  std::vector<float> out_;
  std::vector<float> lse_;
  std::vector<std::uint32_t> counters_;
};

class DeviceMerge : public testing::Test {
 protected:
  void SetUp() override {
    std::string reason;
    if (count_devices(&reason) == 0) GTEST_SKIP() << "needs a GPU: " << reason;
    use_device(0);
  }

  void check(bool exact) {
    unsigned seed = 0;
    for (const int count : {1, 2, 3, 5, 7, 8, 9, 16, 31, 100, 512, 513, 1025, 4096}) {
      for (const int rows : {1, 3, 40}) {
        for (const int d_v : {16, 48, 512}) {
          if (std::int64_t{count} * rows * d_v > 3'000'000) continue;
          for (const bool into_node : {false, true}) {
            const int blocks = std::vector{1, 3, 16, 64}[++seed % 4];
            const int threads = std::vector{64, 128, 256, 384, 512}[seed % 5];
            const Case c{count, rows, d_v, blocks, threads, exact, into_node};
            SCOPED_TRACE(testing::Message() << c);
            MergeProblem problem(c, seed);
            problem.run();
            problem.check();
          }
        }
      }
    }
  }
};

TEST_F(DeviceMerge, GivesTheBitsOfTheCanonicalTree) {
  check(true);
}

TEST_F(DeviceMerge, GivesTheWeightedSumInFastRuns) {
  check(false);
}

TEST_F(DeviceMerge, ComputesPowersAndLogarithmsWithTheHostsBits) {
  constexpr int kCount = 1 << 20;
  std::vector<float> x(kCount);
  for (int i = 0; i < kCount; ++i) x[i] = -160.0F * static_cast<float>(i + 1) / kCount;
  const DeviceBuffer buffer(std::int64_t{12} * kCount, "values");
  auto* values = buffer.as<float>();
  const Stream stream;
  stream.upload(values, x.data(), 4 * kCount);
  check_cuda(launch_exact_math(values, kCount, values + kCount, values + 2 * kCount, stream.get()),
             "launch");
  std::vector<float> powers(kCount);
  std::vector<float> logarithms(kCount);
  stream.download(powers.data(), values + kCount, 4 * kCount);
  stream.download(logarithms.data(), values + 2 * kCount, 4 * kCount);
  stream.synchronise();
  for (int i = 0; i < kCount; ++i) {
    const float power = exp2_exact(x[i]);
    const float logarithm = lse_exact(x[i], -x[i]);
    ASSERT_TRUE(same_bits(&powers[i], &power, 1)) << x[i];
    ASSERT_TRUE(same_bits(&logarithms[i], &logarithm, 1)) << x[i];
  }
}

}  // namespace
}  // namespace mla::test
