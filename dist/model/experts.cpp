#include "dist/model/experts.h"

#include <algorithm>

namespace mla::dist {
namespace {

std::int64_t max_pairs(const ModelConfig& config, const ModelLimits& limits) {
  return limits.max_tokens * config.moe.top_k;
}

}  // namespace

Experts::Experts(const RankContext& context) : context_(context), router_(context) {
  if (context.sharding.groups() == 1) {
    split_.emplace(context, context.group, max_pairs(context.config, context.limits),
                   context.part(context.config.hidden_size).size());
  } else {
    owned_.emplace(context);
  }
  const std::int64_t shared = context.config.moe.shared_intermediate_size;
  if (shared > 0) shared_.emplace(context, context.group, context.limits.max_tokens, shared);
}

std::int64_t Experts::buffer_bytes(const ModelConfig& config, const ModelLimits& limits,
                                   const ModelSharding& sharding) {
  return Router::buffer_bytes(config, limits) +
         Mlp::buffer_bytes(limits.max_tokens, config.moe.shared_intermediate_size,
                           sharding.group_size) +
         (sharding.groups() == 1
              ? ExpertMlps::buffer_bytes(config, max_pairs(config, limits), sharding.group_size)
              : OwnedExperts::buffer_bytes(config, limits, sharding));
}

void Experts::begin(std::span<const std::int64_t> group_tokens) {
  if (owned_) owned_->begin(group_tokens);
}

void Experts::run(const MoeWeights& weights, std::int64_t tokens, const float* x,
                  ColumnGather& out) {
  if (shared_) {
    shared_->run(weights.shared, tokens, x, out);
  } else {
    for (std::int64_t t = 0; t < tokens; ++t) {
      std::fill_n(out.local() + t * out.stride(), out.columns().size(), 0.0F);
    }
  }
  router_.route(weights, tokens, x);
  const ModelConfig& config = context_.config;
  sort_pairs(router_.chosen(), config.moe.top_k, {0, config.moe.num_experts}, pairs_);
  const float* const outputs =
      split_ ? split_->run(weights, pairs_, x, config.hidden_size, out.columns())
             : owned_->run(weights, pairs_, router_.chosen(), x, out.columns());
  router_.add_weighted(pairs_, x, outputs, out);
}

}  // namespace mla::dist
