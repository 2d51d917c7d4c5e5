#pragma once

#include <cstdint>
#include <optional>
#include <span>

#include "dist/model/expert_mlps.h"
#include "dist/model/expert_pairs.h"
#include "dist/model/gather.h"
#include "dist/model/mlp.h"
#include "dist/model/owned_experts.h"
#include "dist/model/rank_context.h"
#include "dist/model/router.h"

namespace mla::dist {

/// The experts of all layers, routed and shared. What the routed ones put out is summed in the
/// order of their indices, on the rank that has these columns of the token.
class Experts {
 public:
  /// Collective over the job.
  explicit Experts(const RankContext& context);

  /// Tokens of each group in the coming step. Local.
  void begin(std::span<const std::int64_t> group_tokens);

  /// This rank's columns of the experts of x [tokens of the group, hidden] into `out`. Collective
  /// over the job.
  void run(const MoeWeights& weights, std::int64_t tokens, const float* x, ColumnGather& out);

  /// Of memory on one rank, at most.
  static std::int64_t buffer_bytes(const ModelConfig& config, const ModelLimits& limits,
                                   const ModelSharding& sharding);

 private:
  const RankContext& context_;
  Router router_;
  ExpertPairs pairs_;
  std::optional<ExpertMlps> split_;    // of one group
  std::optional<OwnedExperts> owned_;  // of several
  std::optional<Mlp> shared_;
};

}  // namespace mla::dist
