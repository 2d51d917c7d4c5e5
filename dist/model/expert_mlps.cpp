#include "dist/model/expert_mlps.h"

#include <algorithm>

namespace mla::dist {

ExpertMlps::ExpertMlps(const RankContext& context, const Communicator& group,
                       std::int64_t max_pairs, std::int64_t max_columns)
    : context_(context),
      inputs_(max_pairs * context.config.hidden_size),
      mlp_(context, group, max_pairs, context.config.moe.intermediate_size),
      outputs_(max_pairs * max_columns) {}

std::int64_t ExpertMlps::buffer_bytes(const ModelConfig& config, std::int64_t max_pairs,
                                      int ranks) {
  return max_pairs * (config.hidden_size + ceil_div(config.hidden_size, ranks)) * 4 +
         Mlp::buffer_bytes(max_pairs, config.moe.intermediate_size, ranks);
}

const float* ExpertMlps::run(const MoeWeights& weights, const ExpertPairs& pairs, const float* x,
                             std::int64_t x_stride, Range columns) {
  const std::int64_t hidden = context_.config.hidden_size;
#pragma omp parallel for schedule(static) num_threads(context_.threads) if (pairs.size() > 16)
  for (std::int64_t p = 0; p < pairs.size(); ++p) {
    std::copy_n(x + pairs.tokens[p] * x_stride, hidden, inputs_.data() + p * hidden);
  }
  parts_.clear();
  for (std::int64_t e = pairs.experts.begin; e < pairs.experts.end; ++e) {
    const Range rows = pairs.pairs_of(e);
    if (!rows.empty()) parts_.push_back({&weights.experts[e], rows});
  }
  mlp_.run(parts_, inputs_.data(), columns, outputs_.data(), columns.size());
  return outputs_.data();
}

}  // namespace mla::dist
