// Linear layers on every backend: against sums in fp64, and the law that an output's bits depend on
// its row of x and its row of W alone.

#include "kernels/linear.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include <gtest/gtest.h>

#include "tests/kernels/linear_problem.h"
#include "tests/support/runner.h"

#ifdef MLA_HAVE_RAPIDCHECK
#include <rapidcheck.h>
#include <rapidcheck/gtest.h>
#endif

namespace mla::test {
namespace {

using kernels::LinearParams;

constexpr WeightType kTypes[] = {WeightType::kBf16, WeightType::kFp16, WeightType::kFp32,
                                 WeightType::kFp8E4m3};

bool same_bits(float a, float b) {
  return std::memcmp(&a, &b, sizeof a) == 0;
}

class Linear : public testing::TestWithParam<const kernels::HostBackend*> {
 protected:
  const kernels::HostBackend& backend() const { return *GetParam(); }

  /// y [rows, outputs.size()] of rows and outputs of a problem; elements between its rows are
  /// checked to stay as they were.
  std::vector<float> run(const LinearProblem& problem, Range rows, Range outputs,
                         int threads = 1) const {
    constexpr std::int64_t kGap = 3;
    const std::int64_t stride = outputs.size() + kGap;
    std::vector<float> y(rows.size() * stride, -1234);
    LinearParams params = problem.params(rows, outputs);
    params.y = y.data();
    params.y_stride = stride;
    run_layers({&params, 1}, threads);
    std::vector<float> packed;
    for (std::int64_t i = 0; i < rows.size(); ++i) {
      const auto row = y.begin() + i * stride;
      packed.insert(packed.end(), row, row + outputs.size());
      EXPECT_EQ(std::count(row + outputs.size(), row + stride, -1234), kGap) << "behind row " << i;
    }
    return packed;
  }

  /// In a workspace full of NaN of just the size asked for, a canary behind it.
  void run_layers(std::span<const LinearParams> layers, int threads) const {
    std::int64_t cols = 0;
    std::int64_t rows = 0;
    for (const LinearParams& layer : layers) {
      cols = std::max(cols, layer.weights.cols);
      rows += layer.rows;
    }
    constexpr std::int64_t kCanaryBytes = 64;
    const std::int64_t bytes = kernels::linear_workspace_bytes(
        backend(), cols, rows, static_cast<std::int64_t>(layers.size()));
    const AlignedBytes workspace(bytes + kCanaryBytes);
    std::memset(workspace.data(), 0xff, bytes);
    std::memset(workspace.data() + bytes, 0xa5, kCanaryBytes);
    kernels::linear(backend(), layers, threads, workspace.span().first(bytes));
    const auto canary = workspace.span().subspan(bytes);
    EXPECT_EQ(std::count(canary.begin(), canary.end(), std::byte{0xa5}), kCanaryBytes);
  }

  void expect_near_oracle(const LinearSpec& spec) const {
    const LinearProblem problem(spec);
    const std::vector<float> y = run(problem, {0, spec.rows}, {0, spec.outputs});
    for (std::int64_t i = 0; i < spec.rows; ++i) {
      for (std::int64_t o = 0; o < spec.outputs; ++o) {
        const LinearProblem::Exact exact = problem.exact(i, o);
        // Two bf16 numbers for one of x leave 2^-17 of it at most.
        ASSERT_NEAR(y[i * spec.outputs + o], exact.sum, 0x1p-17 * exact.sum_of_magnitudes)
            << to_string(spec) << ", row " << i << ", output " << o;
      }
    }
  }

  /// Whether some rows and outputs have the bits that they have among all others.
  void expect_same_bits(const LinearProblem& problem, const std::vector<float>& all, Range rows,
                        Range outputs, int threads) const {
    const std::vector<float> part = run(problem, rows, outputs, threads);
    for (std::int64_t i = 0; i < rows.size(); ++i) {
      for (std::int64_t o = 0; o < outputs.size(); ++o) {
        const float expected = all[(rows.begin + i) * problem.spec().outputs + outputs.begin + o];
        ASSERT_TRUE(same_bits(part[i * outputs.size() + o], expected))
            << to_string(problem.spec()) << ": row " << rows.begin + i << ", output "
            << outputs.begin + o << " of rows from " << rows.begin << " to " << rows.end
            << ", outputs from " << outputs.begin << " to " << outputs.end << ", " << threads
            << " threads";
      }
    }
  }
};

TEST_P(Linear, AgreesWithSumsInFp64) {
  for (const WeightType type : kTypes) {
    for (const std::int64_t cols : {1, 7, 33, 96, 130, 576, 1536}) {
      for (const std::int64_t outputs : {1, 3, 17, 70}) {
        for (const std::int64_t rows : {1, 2, 6, 9, 17, 40}) {
          if (rows * cols * outputs > 400000) continue;
          expect_near_oracle({type, rows, outputs, cols});
        }
      }
    }
  }
}

TEST_P(Linear, ScalesBlocksOfFp8ByRowsOfTheWhole) {
  for (const std::int64_t outputs : {127, 128, 129, 300}) {
    for (const std::int64_t cols : {127, 128, 129, 300}) {
      expect_near_oracle({WeightType::kFp8E4m3, 3, outputs, cols});
    }
  }
}

TEST_P(Linear, KnowsEveryFp8Number) {
  for (const std::int64_t cols : {1, 64}) {  // columns that fill no vector, and some
    std::vector<std::uint8_t> codes;
    for (int code = 0; code < 256; ++code)
      codes.insert(codes.end(), cols, static_cast<std::uint8_t>(code));
    const std::vector<float> scales(2, 0.5F);
    const std::vector<float> x(cols, 1.0F);
    std::vector<float> y(256);
    const LinearParams params{
        .weights = {codes.data(), WeightType::kFp8E4m3, 256, cols, scales.data(), 1},
        .outputs = {0, 256},
        .rows = 1,
        .x = x.data(),
        .x_stride = cols,
        .y = y.data(),
        .y_stride = 256};
    run_layers({&params, 1}, 1);
    for (int code = 0; code < 256; ++code) {
      const double expected =
          0.5 * static_cast<double>(cols) * e4m3_value(static_cast<std::uint8_t>(code));
      if (std::isnan(expected)) {
        EXPECT_TRUE(std::isnan(y[code])) << code;
      } else {
        EXPECT_EQ(y[code], expected) << code;
      }
    }
  }
}

TEST_P(Linear, GivesEveryOutputTheSameBitsInAnyCompany) {
  for (const WeightType type : kTypes) {
    const LinearProblem problem({type, 37, 150, 200});
    const std::vector<float> all = run(problem, {0, 37}, {0, 150});
    for (std::int64_t row = 0; row < 37; row += 5) {
      expect_same_bits(problem, all, {row, row + 1}, {0, 150}, 2);
    }
    for (std::int64_t rows = 1; rows <= 20; ++rows) {
      expect_same_bits(problem, all, {37 - rows, 37}, {3, 40}, 1);
    }
    for (std::int64_t begin = 0; begin < 40; ++begin) {
      expect_same_bits(problem, all, {0, 7}, {begin, 41 + 2 * begin}, 1);
    }
    for (const int threads : {1, 2, 3, 5, 16}) {
      expect_same_bits(problem, all, {0, 37}, {0, 150}, threads);
    }
  }
}

TEST_P(Linear, SumsManyRowsAsItSumsOne) {
  for (const WeightType type : kTypes) {
    for (const std::int64_t cols : {1024, 1029, 2100}) {  // more than stay in L1
      const LinearProblem problem({type, 30, 9, cols});
      const std::vector<float> all = run(problem, {0, 30}, {0, 9});
      for (std::int64_t rows = 1; rows < 30; rows += 4) {
        expect_same_bits(problem, all, {30 - rows, 30}, {1, 9}, 1);
      }
    }
  }
}

TEST_P(Linear, DoesNotDependOnWhereThingsLie) {
  for (const WeightType type : kTypes) {
    const LinearSpec spec{type, 11, 50, 100};
    const LinearProblem problem(spec);
    const std::vector<float> all = run(problem, {0, 11}, {0, 50});
    for (const std::int64_t shift : {1, 3, 8}) {
      LinearSpec moved = spec;
      moved.shift = shift;
      moved.x_gap = 5 * shift;
      expect_same_bits(LinearProblem(moved), all, {0, 11}, {0, 50}, 1);
    }
  }
}

TEST_P(Linear, ComputesLayersTogetherAsAlone) {
  std::vector<LinearProblem> problems;
  for (const WeightType type : kTypes) {
    for (const std::int64_t rows : {3, 0, 12, 1}) {
      problems.emplace_back(LinearSpec{type, rows, 20 + 7 * rows, 64 + 16 * rows});
    }
  }
  std::vector<LinearParams> layers;
  std::vector<std::vector<float>> alone;
  std::vector<std::vector<float>> together;
  for (const LinearProblem& problem : problems) {
    const LinearSpec& spec = problem.spec();
    const Range halves[] = {{0, spec.outputs / 2}, {spec.outputs / 2, spec.outputs}};
    for (const Range outputs : halves) {  // the second one reads the same x
      alone.push_back(run(problem, {0, spec.rows}, outputs));
      together.emplace_back(alone.back().size(), std::nanf(""));
      layers.push_back(problem.params({0, spec.rows}, outputs));
      layers.back().y = together.back().data();
      layers.back().y_stride = outputs.size();
    }
  }
  for (const int threads : {1, 4}) {
    run_layers(layers, threads);
    for (std::size_t i = 0; i < alone.size(); ++i) {
      EXPECT_TRUE(std::equal(alone[i].begin(), alone[i].end(), together[i].begin(), same_bits))
          << "layer " << i << ", " << threads << " threads";
    }
  }
}

TEST_P(Linear, KeepsNanToItsRowAndItsOutput) {
  for (const WeightType type : kTypes) {
    LinearProblem problem({type, 20, 40, 70});
    const std::vector<float> clean = run(problem, {0, 20}, {0, 40});
    problem.poison_row(5);
    problem.poison_output(33);
    const std::vector<float> y = run(problem, {0, 20}, {0, 40});
    for (std::int64_t i = 0; i < 20; ++i) {
      for (std::int64_t o = 0; o < 40; ++o) {
        const float element = y[i * 40 + o];
        if (i == 5 || o == 33) {
          EXPECT_TRUE(std::isnan(element)) << i << ", " << o;
        } else {
          EXPECT_TRUE(same_bits(element, clean[i * 40 + o])) << i << ", " << o;
        }
      }
    }
  }
}

TEST_P(Linear, WritesNothingForNoOutputsAndNoRows) {
  const LinearProblem problem({WeightType::kBf16, 4, 8, 16});
  EXPECT_TRUE(run(problem, {0, 4}, {3, 3}, 2).empty());
  EXPECT_TRUE(run(problem, {2, 2}, {0, 8}, 2).empty());
}

#ifdef MLA_HAVE_RAPIDCHECK
TEST_P(Linear, PropertyBitsDependOnARowAndAnOutputAlone) {
  const bool held = rc::check([this] {
    const auto upto = [](std::int64_t n) { return *rc::gen::inRange<std::int64_t>(0, n + 1); };
    const LinearSpec spec{.type = kTypes[upto(3)],
                          .rows = 1 + upto(40),
                          .outputs = 1 + upto(200),
                          .cols = 1 + upto(300),
                          .shift = upto(9),
                          .x_gap = upto(20),
                          .seed = static_cast<std::uint64_t>(upto(1000))};
    const LinearProblem problem(spec);
    const std::vector<float> all = run(problem, {0, spec.rows}, {0, spec.outputs});
    const std::int64_t row = upto(spec.rows - 1);
    const std::int64_t output = upto(spec.outputs - 1);
    expect_same_bits(problem, all, {row, row + 1 + upto(spec.rows - row - 1)},
                     {output, output + 1 + upto(spec.outputs - output - 1)},
                     1 + static_cast<int>(upto(3)));
    RC_ASSERT(!HasFatalFailure());
  });
  EXPECT_TRUE(held);
}
#endif

INSTANTIATE_TEST_SUITE_P(Backends, Linear, testing::ValuesIn(usable_backends()),
                         [](const auto& backend) { return test_name(*backend.param); });

}  // namespace
}  // namespace mla::test
