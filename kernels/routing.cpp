#include "kernels/routing.h"

#include <algorithm>
#include <limits>

#include "core/exact_math.h"

namespace mla::kernels {
namespace {

constexpr float kTaken = -std::numeric_limits<float>::infinity();
constexpr float kMasked = std::numeric_limits<float>::lowest();  // may still be taken, after others
constexpr float kLog2E = 0x1.715476p+0F;

float exp_of_nonpositive(float x) {
  return exp2_exact(x * kLog2E);
}

float sigmoid(float x) {
  const float e = exp_of_nonpositive(x < 0 ? x : -x);
  return x < 0 ? e / (1.0F + e) : 1.0F / (1.0F + e);
}

void scores_of(ExpertScoring scoring, std::span<const float> logits, float* scores) {
  if (scoring == ExpertScoring::kSigmoid) {
    std::transform(logits.begin(), logits.end(), scores, sigmoid);
    return;
  }
  const float largest = *std::max_element(logits.begin(), logits.end());
  float sum = 0;
  for (std::size_t e = 0; e < logits.size(); ++e) {
    scores[e] = exp_of_nonpositive(logits[e] - largest);
    sum += scores[e];
  }
  for (std::size_t e = 0; e < logits.size(); ++e) scores[e] /= sum;
}

/// The first of the largest.
std::int64_t largest_of(std::span<const float> values) {
  return std::max_element(values.begin(), values.end()) - values.begin();
}

float group_score(GroupScore kind, std::span<const float> choices) {
  float best = kMasked;
  float second = kMasked;
  for (const float c : choices) {
    if (c > best) {
      second = best;
      best = c;
    } else if (c > second) {
      second = c;
    }
  }
  return kind == GroupScore::kMax || choices.size() == 1 ? best : best + second;
}

/// Masks the choices of all groups but the best.
void keep_best_groups(const MoeConfig& moe, std::span<float> choices, std::span<float> groups) {
  const std::size_t size = choices.size() / groups.size();
  for (std::size_t g = 0; g < groups.size(); ++g) {
    groups[g] = group_score(moe.group_score, choices.subspan(g * size, size));
  }
  for (std::int64_t dropped = moe.num_groups; dropped > moe.topk_groups; --dropped) {
    // Of equal groups the last one goes.
    const auto worst = std::min_element(groups.rbegin(), groups.rend());
    const std::size_t g = static_cast<std::size_t>(groups.rend() - worst) - 1;
    groups[g] = std::numeric_limits<float>::infinity();
    std::fill_n(choices.begin() + static_cast<std::ptrdiff_t>(g * size), size, kMasked);
  }
}

}  // namespace

std::int64_t routing_scratch_floats(const MoeConfig& moe) {
  return 2 * (moe.num_experts + moe.num_identity_experts) + moe.num_groups;
}

void choose_experts(const MoeConfig& moe, std::span<const float> logits,
                    std::span<const float> bias, std::span<float> scratch, std::int32_t* experts,
                    float* weights) noexcept {
  const std::size_t n = logits.size();
  const std::span<float> scores = scratch.first(n);
  const std::span<float> choices = scratch.subspan(n, n);
  scores_of(moe.scoring, logits, scores.data());
  for (std::size_t e = 0; e < n; ++e) {
    const float choice = bias.empty() ? scores[e] : scores[e] + bias[e];
    choices[e] = choice > kMasked ? choice : kMasked;  // NaN, too
  }
  if (moe.topk_groups < moe.num_groups) {
    keep_best_groups(moe, choices, scratch.subspan(2 * n, moe.num_groups));
  }
  for (std::int64_t k = 0; k < moe.top_k; ++k) {
    const std::int64_t best = largest_of(choices);
    experts[k] = static_cast<std::int32_t>(best);
    choices[best] = kTaken;
  }
  std::sort(experts, experts + moe.top_k);

  float sum = 0;
  for (std::int64_t k = 0; k < moe.top_k; ++k) sum += weights[k] = scores[experts[k]];
  for (std::int64_t k = 0; k < moe.top_k; ++k) {
    if (moe.normalise) weights[k] /= sum + 1e-20F;
    weights[k] *= moe.routed_scaling_factor;
  }
}

}  // namespace mla::kernels
