#include "core/sampler.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <set>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#ifdef MLA_HAVE_RAPIDCHECK
#include <rapidcheck.h>
#include <rapidcheck/gtest.h>
#endif

#include "core/error.h"
#include "tests/core/special_floats.h"

namespace mla {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

/// How often each token comes in `draws` draws.
std::map<std::int32_t, int> count_draws(const std::vector<float>& logits,
                                        const SamplingParams& params, int draws) {
  Sampler sampler;
  std::map<std::int32_t, int> counts;
  for (int i = 0; i < draws; ++i) {
    ++counts[sampler.sample(logits, params, {.seed = 3, .position = static_cast<unsigned>(i)})];
  }
  return counts;
}

std::set<std::int32_t> tokens_drawn(const std::vector<float>& logits,
                                    const SamplingParams& params) {
  std::set<std::int32_t> tokens;
  for (const auto& [token, count] : count_draws(logits, params, 4000)) tokens.insert(token);
  return tokens;
}

/// Logits of these probabilities.
std::vector<float> logits_of(const std::vector<double>& probabilities) {
  std::vector<float> logits;
  for (const double p : probabilities) logits.push_back(static_cast<float>(std::log(p)));
  return logits;
}

/// Chi-square over degrees of freedom of draws against these probabilities.
double chi_square(const std::vector<float>& logits, const SamplingParams& params,
                  const std::vector<double>& probabilities) {
  constexpr int kDraws = 20000;
  auto counts = count_draws(logits, params, kDraws);
  double sum = 0;
  int cells = 0;
  for (std::size_t i = 0; i < probabilities.size(); ++i) {
    const int count = counts[static_cast<std::int32_t>(i)];
    if (probabilities[i] == 0) {
      EXPECT_EQ(count, 0) << "token " << i;
      continue;
    }
    const double expected = kDraws * probabilities[i];
    sum += (count - expected) * (count - expected) / expected;
    ++cells;
  }
  return sum / (cells - 1);
}

TEST(Sampler, DrawsTokensWithTheirProbabilities) {
  const std::vector<double> p{0.4, 0.25, 0.15, 0.1, 0.06, 0.04};
  EXPECT_LT(chi_square(logits_of(p), {}, p), 2.5);
}

TEST(Sampler, DividesByTheTemperature) {
  const std::vector<double> p{0.6, 0.3, 0.1};
  std::vector<double> hot(p.size());
  std::ranges::transform(p, hot.begin(), [](double x) { return std::sqrt(x); });
  const double sum = std::accumulate(hot.begin(), hot.end(), 0.0);
  for (double& x : hot) x /= sum;
  EXPECT_LT(chi_square(logits_of(p), {.temperature = 2}, hot), 2.5);
}

TEST(Sampler, CutsAndSharesTheRest) {
  const std::vector<float> logits = logits_of({0.1, 0.4, 0.06, 0.25, 0.04, 0.15});
  const double top3 = 0.4 + 0.25 + 0.15;
  EXPECT_LT(chi_square(logits, {.top_k = 3}, {0, 0.4 / top3, 0, 0.25 / top3, 0, 0.15 / top3}), 2.5);
  // 0.4 + 0.25 do not reach 0.7.
  EXPECT_LT(chi_square(logits, {.top_p = 0.7}, {0, 0.4 / top3, 0, 0.25 / top3, 0, 0.15 / top3}),
            2.5);
  EXPECT_LT(chi_square(logits, {.min_p = 0.3}, {0, 0.4 / top3, 0, 0.25 / top3, 0, 0.15 / top3}),
            2.5);
}

TEST(Sampler, TopPCountsWhatTopKLeft) {
  const std::vector<float> logits = logits_of({0.4, 0.25, 0.15, 0.1, 0.1});
  EXPECT_EQ(tokens_drawn(logits, {.top_k = 2, .top_p = 0.6}), (std::set<std::int32_t>{0}));
  EXPECT_EQ(tokens_drawn(logits, {.top_k = 2, .top_p = 0.7}), (std::set<std::int32_t>{0, 1}));
  EXPECT_EQ(tokens_drawn(logits, {.top_p = 0}), (std::set<std::int32_t>{0}));
}

TEST(Sampler, OfEqualLogitsTakesTheLowerId) {
  const std::vector<float> logits{0, 1, 1, 1};
  EXPECT_EQ(tokens_drawn(logits, {.temperature = 0}), (std::set<std::int32_t>{1}));
  EXPECT_EQ(tokens_drawn(logits, {.top_k = 2}), (std::set<std::int32_t>{1, 2}));
}

TEST(Sampler, NeverDrawsMinusInfinity) {
  EXPECT_EQ(tokens_drawn({-kInf, 0, -kInf, 0}, {.temperature = kMaxTemperature}),
            (std::set<std::int32_t>{1, 3}));
}

TEST(Sampler, FindsTheMassOfALargeVocabulary) {
  // All alike: half of the mass is half of the tokens, those with the lower ids.
  const std::vector<float> logits(3000, 1.5F);
  const auto tokens = tokens_drawn(logits, {.top_p = 0.5});
  EXPECT_GT(tokens.size(), 1000u);
  EXPECT_LT(*tokens.rbegin(), 1500);
}

TEST(Sampler, RepeatsADrawWhateverCameBefore) {
  const std::vector<float> logits = logits_of({0.3, 0.3, 0.2, 0.2});
  Sampler used;
  for (unsigned i = 0; i < 100; ++i) {
    const SampleCounter counter{.seed = 7, .stream = 3, .position = i};
    used.sample(logits, {.top_k = 1}, {});
    EXPECT_EQ(used.sample(logits, {}, counter), Sampler().sample(logits, {}, counter));
  }
}

TEST(Sampler, DrawsTheseTokensOnEveryMachine) {
  std::vector<float> logits(50);
  for (int i = 0; i < 50; ++i) logits[i] = static_cast<float>((i * 37) % 50) / 10;
  std::vector<std::int32_t> tokens;
  Sampler sampler;
  for (unsigned i = 0; i < 8; ++i) {
    tokens.push_back(sampler.sample(logits, {.temperature = 0.8, .top_k = 40, .top_p = 0.95},
                                    {.seed = 1234, .stream = 5, .position = i}));
  }
  EXPECT_THAT(tokens, ElementsAre(20, 31, 24, 24, 27, 39, 17, 8));
}

TEST(Sampler, RefusesLogitsThatAreNoNumbers) {
  const auto error_of = [](const std::vector<float>& logits) -> std::string {
    try {
      Sampler().sample(logits, {}, {});
    } catch (const FormatError& error) {
      return error.what();
    }
    return "none";
  };
  EXPECT_THAT(error_of({1, kNan, 2}), HasSubstr("logits: largest is"));
  EXPECT_THAT(error_of({1, kInf}), HasSubstr("logits: largest is inf"));
  EXPECT_THAT(error_of({-kInf, -kInf}), HasSubstr("logits: largest is -inf"));
}

TEST(SamplingParams, NameWhatIsOutOfRange) {
  const auto error_of = [](const SamplingParams& params) -> std::string {
    try {
      check_sampling(params);
    } catch (const InvalidArgument& error) {
      return error.what();
    }
    return "none";
  };
  EXPECT_EQ(error_of({}), "none");
  EXPECT_THAT(error_of({.temperature = -1}), HasSubstr("temperature: -1"));
  EXPECT_THAT(error_of({.temperature = kNan}), HasSubstr("temperature: nan"));
  EXPECT_THAT(error_of({.min_p = 1.5}), HasSubstr("min_p: 1.5"));
  EXPECT_THAT(error_of({.top_k = -3}), HasSubstr("top_k: -3"));
  EXPECT_THAT(error_of({.top_p = 2}), HasSubstr("top_p: 2"));
}

TEST(UniformNumber, DiffersByEveryPartOfItsCounter) {
  std::set<double> numbers;
  double sum = 0;
  for (unsigned i = 0; i < 4096; ++i) {
    const double u = uniform_number({.seed = i / 256, .stream = i / 16 % 16, .position = i % 16});
    EXPECT_GE(u, 0);
    EXPECT_LT(u, 1);
    numbers.insert(u);
    sum += u;
  }
  EXPECT_EQ(numbers.size(), 4096u);
  EXPECT_NEAR(sum / 4096, 0.5, 0.02);
}

TEST(LargestLogit, IsOfTheLowestIdOfEqualOnes) {
  EXPECT_EQ(largest_logit(std::vector<float>{1, 3, 3}).id, 1);
  EXPECT_EQ(largest_logit(std::vector<float>{-0.0F, 0.0F}).id, 0);
  EXPECT_EQ(largest_logit(std::vector<float>{-kInf, -kInf}, 10).id, 10);
  EXPECT_EQ(largest_logit({}).id, -1);
  EXPECT_EQ(largest_logit(std::vector<float>{1, kNan, 9, kNan}).id, 1);
}

TEST(TokenLogprobs, GiveTheChosenThenTheLikeliest) {
  const std::vector<float> logits = logits_of({0.1, 0.3, 0.3, 0.2, 0.1});
  const auto logprobs = token_logprobs(logits, 4, 3);
  ASSERT_EQ(logprobs.size(), 4u);
  const std::int32_t ids[] = {4, 1, 2, 3};
  const double p[] = {0.1, 0.3, 0.3, 0.2};
  for (int i = 0; i < 4; ++i) {
    EXPECT_EQ(logprobs[i].id, ids[i]);
    EXPECT_NEAR(logprobs[i].logprob, std::log(p[i]), 1e-6);
  }
  EXPECT_EQ(token_logprobs(logits, 0, 99).size(), 6u);
  EXPECT_EQ(token_logprobs(logits, 0, 0).size(), 1u);
}

#ifdef MLA_HAVE_RAPIDCHECK
/// Few values, so that many are equal.
rc::Gen<std::vector<float>> some_logits() {
  return rc::gen::nonEmpty(rc::gen::container<std::vector<float>>(
      rc::gen::map(rc::gen::inRange(-8, 8), [](int x) { return static_cast<float>(x) / 2; })));
}

RC_GTEST_PROP(LargestLogit, OfSlicesIsThatOfTheWhole, ()) {
  const auto logits = *some_logits();
  const auto cuts = *rc::gen::container<std::set<std::size_t>>(
      rc::gen::inRange<std::size_t>(0, logits.size() + 1));
  std::vector<LargestLogit> slices;
  std::size_t begin = 0;
  auto ends = cuts;
  ends.insert(logits.size());
  for (const std::size_t end : ends) {
    slices.push_back(largest_logit(std::span(logits).subspan(begin, end - begin),
                                   static_cast<std::int32_t>(begin)));
    begin = end;
  }
  const LargestLogit whole = largest_logit(logits);
  for (int order = 0; order < 2; ++order) {
    LargestLogit folded;
    for (const LargestLogit& slice : slices) folded = larger(folded, slice);
    RC_ASSERT(folded.id == whole.id && folded.logit == whole.logit);
    std::ranges::reverse(slices);
  }
}

RC_GTEST_PROP(Sampler, KeepsTheLikeliest, ()) {
  const auto logits = *some_logits();
  const SamplingParams params{.temperature = *rc::gen::element(0.5, 1.0, 3.0),
                              .min_p = *rc::gen::element(0.0, 0.1, 1.0),
                              .top_k = *rc::gen::inRange(0, 6),
                              .top_p = *rc::gen::element(0.1, 0.9, 1.0)};
  const std::int32_t token =
      Sampler().sample(logits, params, {.position = *rc::gen::arbitrary<std::uint64_t>()});
  const auto better = std::ranges::count_if(logits, [&](float x) { return x > logits[token]; });
  if (params.top_k > 0) RC_ASSERT(better < params.top_k);
  if (params.min_p == 1) RC_ASSERT(better == 0);
}

RC_GTEST_PROP(Sampler, CutsTheSameTokensInAnyOrder, ()) {
  // Distinct logits: what is drawn at all must not depend on which ids they have.
  const auto values =
      *rc::gen::nonEmpty(rc::gen::container<std::set<int>>(rc::gen::inRange(0, 40)));
  std::vector<float> logits;
  for (const int value : values) logits.push_back(static_cast<float>(value) / 8);
  const SamplingParams params{.min_p = 0.05, .top_k = *rc::gen::inRange(0, 12), .top_p = 0.8};
  const auto kept = [&](const std::vector<float>& shuffled) {
    std::set<float> drawn;
    for (const std::int32_t token : tokens_drawn(shuffled, params)) drawn.insert(shuffled[token]);
    return *drawn.begin();
  };
  const float lowest = kept(logits);
  std::ranges::reverse(logits);
  RC_ASSERT(kept(logits) == lowest);
}
#endif

}  // namespace
}  // namespace mla
