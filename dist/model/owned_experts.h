#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/aligned_buffer.h"
#include "dist/model/expert_mlps.h"
#include "dist/model/expert_pairs.h"
#include "dist/model/gather.h"
#include "dist/model/rank_context.h"

namespace mla::dist {

/// Experts that lie wholly on one rank of the job each; tokens of all groups come to them:
///
///   tokens of every group -> gather over the job -> owner: own experts -> exchange -> [pairs,
///   columns] on every rank of the token's group
class OwnedExperts {
 public:
  /// `context` must outlive it. Local.
  explicit OwnedExperts(const RankContext& context);

  /// Tokens of each group in the coming step. Local.
  void begin(std::span<const std::int64_t> group_tokens);

  /// Columns `columns` of what the experts put out for each pair of this rank's group:
  /// [pairs, columns]. Collective over the job.
  /// @param pairs of the group's tokens and all experts
  /// @param chosen [tokens, top_k] that they were made of
  /// @param x [tokens of the group, hidden]
  const float* run(const MoeWeights& weights, const ExpertPairs& pairs,
                   std::span<const std::int32_t> chosen, const float* x, Range columns);

  /// Of memory on one rank, at most.
  static std::int64_t buffer_bytes(const ModelConfig& config, const ModelLimits& limits,
                                   const ModelSharding& sharding);

 private:
  void gather_tokens(std::span<const std::int32_t> chosen, const float* x);
  void pack_outputs(const float* outputs);

  const RankContext& context_;
  std::int64_t hidden_;
  std::int64_t top_k_;
  Range experts_;  // own

  std::vector<std::int64_t> first_tokens_;    // [groups + 1] in the order of groups
  std::vector<std::int64_t> rank_tokens_;     // [ranks]: how many each sends
  Range sent_tokens_;                         // of the group's: those that this rank sends
  std::vector<std::int64_t> send_counts_;     // [ranks] floats
  std::vector<std::int64_t> receive_counts_;  // [ranks] floats
  ExpertPairs pairs_;                         // of all tokens and own experts

  AlignedBuffer<float> sent_;         // [own tokens, hidden + top_k]
  AlignedBuffer<float> tokens_;       // the same of all groups
  std::vector<std::int32_t> chosen_;  // [all tokens, top_k]
  Communicator self_ = Communicator::self();
  ExpertMlps mlps_;                // [pairs, hidden]; what is sent back lies in its scratch
  AlignedBuffer<float> received_;  // [pairs of the group, own columns]
};

}  // namespace mla::dist
