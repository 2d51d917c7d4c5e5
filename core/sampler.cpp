#include "core/sampler.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <string>
#include <string_view>

#include "core/error.h"
#include "core/exact_math.h"
#include "core/random_stream.h"

namespace mla {
namespace {

constexpr double kLog2E = 0x1.71547652b82fep+0;
constexpr double kLn2 = 0x1.62e42fefa39efp-1;

void check_within(std::string_view field, double value, double least, double most) {
  if (value >= least && value <= most) return;
  throw InvalidArgument(field, std::to_string(value),
                        "a number from " + std::to_string(least) + " to " + std::to_string(most));
}

/// e^((logit - largest) * scale / log2 e).
float weight_of(float logit, float largest, double scale) {
  const double difference = static_cast<double>(logit) - static_cast<double>(largest);
  return exp2_exact(static_cast<float>(difference * scale));
}

double log_sum_exp(std::span<const float> logits, float largest) {
  double sum = 0;
  for (const float logit : logits) sum += static_cast<double>(weight_of(logit, largest, kLog2E));
  return static_cast<double>(largest) + log2_exact(static_cast<float>(sum)) * kLn2;
}

}  // namespace

void check_sampling(const SamplingParams& params) {
  check_within("temperature", params.temperature, 0, kMaxTemperature);
  check_within("min_p", params.min_p, 0, 1);
  check_within("top_p", params.top_p, 0, 1);
  if (params.top_k < 0) {
    throw InvalidArgument("top_k", std::to_string(params.top_k), "0 (all tokens) or more");
  }
}

double uniform_number(const SampleCounter& counter) {
  const RandomStream stream(counter.seed, 1, counter.stream + 1);
  return static_cast<double>(stream[counter.position] >> 11) * 0x1p-53;
}

LargestLogit largest_logit(std::span<const float> logits, std::int32_t first_id) {
  LargestLogit largest;
  for (std::size_t i = 0; i < logits.size(); ++i) {
    largest = larger(largest, {logits[i], first_id + static_cast<std::int32_t>(i)});
  }
  return largest;
}

LargestLogit larger(LargestLogit a, LargestLogit b) {
  if (a.id < 0 || b.id < 0) return a.id < 0 ? b : a;
  if (std::isnan(a.logit) != std::isnan(b.logit)) return std::isnan(a.logit) ? a : b;
  if (a.logit > b.logit || a.logit < b.logit) return a.logit > b.logit ? a : b;
  return a.id < b.id ? a : b;
}

std::int32_t greedy_token(LargestLogit largest) {
  if (largest.id < 0 || !std::isfinite(largest.logit)) {
    throw FormatError("logits", "largest is " + std::to_string(largest.logit),
                      "a finite number; are the model's weights sound?");
  }
  return largest.id;
}

std::int32_t Sampler::sample(std::span<const float> logits, const SamplingParams& params,
                             const SampleCounter& counter) {
  const LargestLogit largest = largest_logit(logits);
  const std::int32_t greedy = greedy_token(largest);
  if (params.temperature == 0) return greedy;
  weigh(logits, largest.logit, params);
  keep_top_k(params.top_k);
  keep_top_p(params.top_p);

  const double target = uniform_number(counter) * total_weight();
  double sum = 0;
  for (const Candidate& candidate : candidates_) {
    sum += static_cast<double>(candidate.weight);
    if (sum > target) return candidate.id;
  }
  return candidates_.back().id;
}

void Sampler::weigh(std::span<const float> logits, float largest, const SamplingParams& params) {
  const double scale = kLog2E / params.temperature;
  candidates_.clear();
  for (std::size_t i = 0; i < logits.size(); ++i) {
    const float weight = weight_of(logits[i], largest, scale);
    if (weight == 0 || static_cast<double>(weight) < params.min_p) continue;
    candidates_.push_back({logits[i], weight, static_cast<std::int32_t>(i)});
  }
}

void Sampler::keep_top_k(std::int64_t top_k) {
  if (top_k == 0 || top_k >= static_cast<std::int64_t>(candidates_.size())) return;
  std::nth_element(candidates_.begin(), candidates_.begin() + top_k, candidates_.end());
  candidates_.resize(static_cast<std::size_t>(top_k));
  // Libraries leave different orders behind, and the order decides the sum's rounding.
  std::sort(candidates_.begin(), candidates_.end());
}

void Sampler::keep_top_p(double top_p) {
  if (top_p >= 1) return;
  const double enough = top_p * total_weight();
  const auto end = candidates_.end();
  // Few tokens usually have the mass: sort ever larger runs instead of the whole vocabulary.
  constexpr std::ptrdiff_t kFirstRun = 64;
  double sum = 0;
  auto sorted = candidates_.begin();
  for (std::ptrdiff_t run = kFirstRun; sorted != end; run *= 4) {
    const auto next = sorted + std::min(run, end - sorted);
    if (next != end) std::nth_element(sorted, next, end);
    std::sort(sorted, next);
    for (; sorted != next; ++sorted) {
      sum += static_cast<double>(sorted->weight);
      if (sum < enough) continue;
      candidates_.erase(sorted + 1, end);
      return;
    }
  }
}

double Sampler::total_weight() const {
  return std::accumulate(
      candidates_.begin(), candidates_.end(), 0.0,
      [](double sum, const Candidate& c) { return sum + static_cast<double>(c.weight); });
}

std::vector<TokenLogprob> token_logprobs(std::span<const float> logits, std::int32_t chosen,
                                         std::int64_t count) {
  std::vector<std::int32_t> ids(logits.size());
  std::iota(ids.begin(), ids.end(), 0);
  const auto top = ids.begin() + std::min(count, static_cast<std::int64_t>(ids.size()));
  std::partial_sort(ids.begin(), top, ids.end(), [&](std::int32_t a, std::int32_t b) {
    return logits[a] > logits[b] || (logits[a] == logits[b] && a < b);
  });
  const double normalizer = log_sum_exp(logits, largest_logit(logits).logit);
  const auto logprob = [&](std::int32_t id) {
    return TokenLogprob{id, static_cast<float>(static_cast<double>(logits[id]) - normalizer)};
  };
  std::vector<TokenLogprob> result{logprob(chosen)};
  std::transform(ids.begin(), top, std::back_inserter(result), logprob);
  return result;
}

}  // namespace mla
