#include "dist/model/router.h"

#include "kernels/routing.h"

namespace mla::dist {
namespace {

std::int64_t choices(const MoeConfig& moe) {
  return moe.num_experts + moe.num_identity_experts;
}

}  // namespace

Router::Router(const RankContext& context)
    : context_(context),
      config_(context.config.moe),
      logits_(context.limits.max_tokens * choices(config_)),
      scratch_(context.limits.max_tokens * kernels::routing_scratch_floats(config_)),
      chosen_(context.limits.max_tokens * config_.top_k),
      weights_(context.limits.max_tokens * config_.top_k) {}

std::int64_t Router::buffer_bytes(const ModelConfig& config, const ModelLimits& limits) {
  const MoeConfig& moe = config.moe;
  return limits.max_tokens * 4 *
         (choices(moe) + kernels::routing_scratch_floats(moe) + 2 * moe.top_k);
}

void Router::route(const MoeWeights& weights, std::int64_t tokens, const float* x) {
  tokens_ = tokens;
  context_.linear({.weights = weights.router,
                   .outputs = {0, weights.router.rows},
                   .rows = tokens,
                   .x = x,
                   .x_stride = weights.router.cols,
                   .y = logits_.data(),
                   .y_stride = weights.router.rows});
  const auto experts = static_cast<std::size_t>(choices(config_));
  const auto scratch = static_cast<std::size_t>(kernels::routing_scratch_floats(config_));
#pragma omp parallel for schedule(static) num_threads(context_.threads) if (tokens > 1)
  for (std::int64_t t = 0; t < tokens; ++t) {
    kernels::choose_experts(config_, {logits_.data() + t * experts, experts},
                            weights.selection_bias, {scratch_.data() + t * scratch, scratch},
                            chosen_.data() + t * config_.top_k,
                            weights_.data() + t * config_.top_k);
  }
}

void Router::add_weighted(const ExpertPairs& pairs, const float* x, const float* outputs,
                          ColumnGather& out) const {
  const std::int64_t hidden = context_.config.hidden_size;
  const Range columns = out.columns();
  const std::int64_t width = columns.size();
#pragma omp parallel for schedule(static) num_threads(context_.threads) if (tokens_ > 1)
  for (std::int64_t t = 0; t < tokens_; ++t) {
    float* const to = out.local() + t * out.stride();
    for (std::int64_t c = 0; c < width; ++c) {
      float sum = 0;
      for (std::int64_t i = t * config_.top_k; i < (t + 1) * config_.top_k; ++i) {
        const std::int64_t place = pairs.places[i];
        const float put_out =
            place < 0 ? x[t * hidden + columns.begin + c] : outputs[place * width + c];
        sum += weights_.data()[i] * put_out;
      }
      to[c] += sum;
    }
  }
}

}  // namespace mla::dist
