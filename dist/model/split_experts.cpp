#include "dist/model/split_experts.h"

#include "dist/model/expert_layers.h"

namespace mla::dist {
namespace {

std::int64_t max_pairs(const ModelConfig& config, const ModelLimits& limits) {
  return limits.max_tokens * config.moe.top_k;
}

}  // namespace

SplitExperts::SplitExperts(const RankContext& context)
    : context_(context),
      inputs_(max_pairs(context.config, context.limits) * context.config.hidden_size),
      activations_(context.group, max_pairs(context.config, context.limits),
                   context.config.moe.intermediate_size),
      gate_(max_pairs(context.config, context.limits) * activations_.columns().size()),
      up_(max_pairs(context.config, context.limits) * activations_.columns().size()),
      outputs_(max_pairs(context.config, context.limits) *
               context.part(context.config.hidden_size).size()) {}

std::int64_t SplitExperts::buffer_bytes(const ModelConfig& config, const ModelLimits& limits,
                                        const ModelSharding& sharding) {
  const std::int64_t pairs = max_pairs(config, limits);
  const std::int64_t intermediate = config.moe.intermediate_size;
  return pairs * 4 *
             (config.hidden_size + 2 * ceil_div(intermediate, sharding.group_size) +
              ceil_div(config.hidden_size, sharding.group_size)) +
         ColumnGather::bytes(pairs, intermediate, sharding.group_size);
}

const float* SplitExperts::run(const MoeWeights& weights, const ExpertPairs& pairs, const float* x,
                               Range columns) {
  const std::int64_t hidden = context_.config.hidden_size;
  copy_inputs(pairs, hidden, x, hidden, context_.threads, inputs_.data());
  activate_experts(context_, weights, pairs, inputs_.data(), activations_.columns(), gate_.data(),
                   up_.data(), activations_.local(), activations_.stride(), layers_);
  project_experts(context_, weights, pairs, activations_.gather(pairs.size()), columns,
                  outputs_.data(), layers_);
  return outputs_.data();
}

}  // namespace mla::dist
