#pragma once

#include <cstdint>
#include <vector>

#include "core/aligned_buffer.h"
#include "dist/model/expert_pairs.h"
#include "dist/model/mlp.h"
#include "dist/model/rank_context.h"

namespace mla::dist {

/// What experts put out for (token, expert) pairs. The ranks of a group share the experts' rows.
class ExpertMlps {
 public:
  /// Both must outlive it. Collective over `group`.
  /// @param max_columns of one `run`
  ExpertMlps(const RankContext& context, const Communicator& group, std::int64_t max_pairs,
             std::int64_t max_columns);

  /// Columns `columns` of what the experts put out for each pair: [pairs, columns], to be read
  /// until the next call. Collective over the group.
  /// @param pairs the same on all ranks
  /// @param x [tokens, hidden], `x_stride` floats apart
  const float* run(const MoeWeights& weights, const ExpertPairs& pairs, const float* x,
                   std::int64_t x_stride, Range columns);

  /// [max_pairs, hidden], free for other use between runs.
  float* scratch() { return inputs_.data(); }

  /// Of memory on one rank of a group of `ranks`, at most.
  static std::int64_t buffer_bytes(const ModelConfig& config, std::int64_t max_pairs, int ranks);

 private:
  const RankContext& context_;
  AlignedBuffer<float> inputs_;  // [pairs, hidden]
  Mlp mlp_;
  AlignedBuffer<float> outputs_;  // [pairs, columns]
  std::vector<Mlp::Part> parts_;  // by expert
};

}  // namespace mla::dist
