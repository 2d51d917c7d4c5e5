#include "dist/model/owned_experts.h"

#include <algorithm>

namespace mla::dist {
namespace {

/// Pairs of own experts, at most: of all tokens of a step.
std::int64_t max_own_pairs(const ModelConfig& config, const ModelLimits& limits,
                           const ModelSharding& sharding) {
  const std::int64_t experts = ceil_div(config.moe.num_experts, sharding.ranks);
  return limits.max_tokens * std::min(config.moe.top_k, experts);
}

}  // namespace

OwnedExperts::OwnedExperts(const RankContext& context)
    : context_(context),
      hidden_(context.config.hidden_size),
      top_k_(context.config.moe.top_k),
      experts_(experts_of(context.sharding, context.world.rank(), context.config.moe.num_experts)),
      // Every rank of a group gets its columns of a pair: together one row for a pair.
      mlps_(context, self_, max_own_pairs(context.config, context.limits, context.sharding),
            hidden_) {
  const std::int64_t tokens = context.limits.max_tokens;
  // Parts of a group's tokens are even, so a rank sends at most all of them in a group of one.
  sent_ = AlignedBuffer<float>(tokens * (hidden_ + top_k_));
  tokens_ = AlignedBuffer<float>(tokens * (hidden_ + top_k_));
  received_ = AlignedBuffer<float>(tokens * top_k_ * context.part(hidden_).size());
}

std::int64_t OwnedExperts::buffer_bytes(const ModelConfig& config, const ModelLimits& limits,
                                        const ModelSharding& sharding) {
  const MoeConfig& moe = config.moe;
  const std::int64_t columns = ceil_div(config.hidden_size, sharding.group_size);
  return 4 * limits.max_tokens * (2 * (config.hidden_size + moe.top_k) + moe.top_k * columns) +
         ExpertMlps::buffer_bytes(config, max_own_pairs(config, limits, sharding), 1);
}

void OwnedExperts::begin(std::span<const std::int64_t> group_tokens) {
  const ModelSharding& sharding = context_.sharding;
  first_tokens_.assign(1, 0);
  for (const std::int64_t tokens : group_tokens) {
    first_tokens_.push_back(first_tokens_.back() + tokens);
  }
  rank_tokens_.clear();
  for (int r = 0; r < sharding.ranks; ++r) {
    rank_tokens_.push_back(group_part(sharding, r, group_tokens[sharding.group_of(r)]).size());
  }
  sent_tokens_ = context_.part(group_tokens[sharding.group_of(context_.world.rank())]);
}

const float* OwnedExperts::run(const MoeWeights& weights, const ExpertPairs& pairs,
                               std::span<const std::int32_t> chosen, const float* x,
                               Range columns) {
  gather_tokens(chosen, x);
  sort_pairs(chosen_, top_k_, experts_, pairs_);
  pack_outputs(mlps_.run(weights, pairs_, tokens_.data(), hidden_ + top_k_, {0, hidden_}));

  // Senders have their experts in ascending order, and each sends pairs by expert and token: what
  // comes in is in the order of `pairs`.
  receive_counts_.clear();
  for (int r = 0; r < context_.sharding.ranks; ++r) {
    const Range theirs = experts_of(context_.sharding, r, context_.config.moe.num_experts);
    receive_counts_.push_back(pairs.pairs_of(theirs).size() * columns.size());
  }
  exchange_floats(context_.world, send_counts_, mlps_.scratch(), receive_counts_, received_.data());
  return received_.data();
}

/// A token travels with its choices, in fp32, which holds them exactly.
void OwnedExperts::gather_tokens(std::span<const std::int32_t> chosen, const float* x) {
  float* to = sent_.data();
  for (std::int64_t t = sent_tokens_.begin; t < sent_tokens_.end; ++t) {
    to = std::copy_n(x + t * hidden_, hidden_, to);
    for (std::int64_t k = 0; k < top_k_; ++k) *to++ = static_cast<float>(chosen[t * top_k_ + k]);
  }
  gather_rows(context_.world, rank_tokens_, hidden_ + top_k_, sent_.data(), tokens_.data());
  chosen_.clear();
  for (std::int64_t t = 0; t < first_tokens_.back(); ++t) {
    const float* const ids = tokens_.data() + t * (hidden_ + top_k_) + hidden_;
    for (std::int64_t k = 0; k < top_k_; ++k) chosen_.push_back(static_cast<std::int32_t>(ids[k]));
  }
}

/// For each rank its columns of the pairs of its group's tokens, in the order of the pairs.
void OwnedExperts::pack_outputs(const float* outputs) {
  const ModelSharding& sharding = context_.sharding;
  float* to = mlps_.scratch();
  send_counts_.clear();
  for (int r = 0; r < sharding.ranks; ++r) {
    const int group = sharding.group_of(r);
    const Range columns = group_part(sharding, r, hidden_);
    const float* const begin = to;
    for (std::int64_t p = 0; p < pairs_.size(); ++p) {
      const std::int64_t token = pairs_.tokens[p];
      if (token < first_tokens_[group] || token >= first_tokens_[group + 1]) continue;
      to = std::copy_n(outputs + p * hidden_ + columns.begin, columns.size(), to);
    }
    send_counts_.push_back(to - begin);
  }
}

}  // namespace mla::dist
