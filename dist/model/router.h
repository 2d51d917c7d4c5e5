#pragma once

#include <cstdint>
#include <span>

#include "core/aligned_buffer.h"
#include "dist/model/expert_pairs.h"
#include "dist/model/gather.h"
#include "dist/model/rank_context.h"

namespace mla::dist {

/// Chooses experts for the tokens of a group, on every rank of it, and sums up what they put out.
class Router {
 public:
  /// `context` must outlive it. Local.
  explicit Router(const RankContext& context);

  /// Chooses the experts of `tokens` tokens, alike on every rank of the group. Local.
  /// @param x [tokens, hidden]
  void route(const MoeWeights& weights, std::int64_t tokens, const float* x);

  /// [tokens, top_k], ascending for each token; from num_experts on identity experts.
  std::span<const std::int32_t> chosen() const {
    return {chosen_.data(), static_cast<std::size_t>(tokens_ * config_.top_k)};
  }

  /// This rank's columns of out[token] += for each choice in order: its weight times what the
  /// expert put out.
  /// @param x [tokens, hidden]: what identity experts put out
  /// @param outputs [pairs, columns]
  void add_weighted(const ExpertPairs& pairs, const float* x, const float* outputs,
                    ColumnGather& out) const;

  /// Of memory on one rank, at most.
  static std::int64_t buffer_bytes(const ModelConfig& config, const ModelLimits& limits);

 private:
  const RankContext& context_;
  const MoeConfig& config_;
  std::int64_t tokens_ = 0;
  AlignedBuffer<float> logits_;         // [tokens, experts and identity experts]
  AlignedBuffer<float> scratch_;        // [tokens, routing scratch]
  AlignedBuffer<std::int32_t> chosen_;  // [tokens, top_k]
  AlignedBuffer<float> weights_;        // [tokens, top_k]
};

}  // namespace mla::dist
