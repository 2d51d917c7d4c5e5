#pragma once

#include <cstdint>
#include <vector>

#include "core/aligned_buffer.h"
#include "dist/model/expert_pairs.h"
#include "dist/model/gather.h"
#include "dist/model/rank_context.h"

namespace mla::dist {

/// Experts whose rows the ranks of the only group share, as they do those of other MLPs.
class SplitExperts {
 public:
  /// Collective over the group.
  explicit SplitExperts(const RankContext& context);

  /// Columns `columns` of what the experts put out for each pair: [pairs, columns]. Collective over
  /// the group.
  /// @param x [tokens, hidden]
  const float* run(const MoeWeights& weights, const ExpertPairs& pairs, const float* x,
                   Range columns);

  static std::int64_t buffer_bytes(const ModelConfig& config, const ModelLimits& limits,
                                   const ModelSharding& sharding);

 private:
  const RankContext& context_;
  AlignedBuffer<float> inputs_;   // [pairs, hidden]
  ColumnGather activations_;      // [pairs, intermediate]
  AlignedBuffer<float> gate_;     // [pairs, own part of intermediate]
  AlignedBuffer<float> up_;       // [pairs, own part of intermediate]
  AlignedBuffer<float> outputs_;  // [pairs, own columns of hidden]
  std::vector<kernels::LinearParams> layers_;
};

}  // namespace mla::dist
