#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/aligned_buffer.h"
#include "core/sampler.h"
#include "dist/model/gather.h"
#include "dist/model/group_step.h"
#include "dist/model/rank_context.h"

namespace mla::dist {

/// The end of the model: last norm and head. Every rank of the job has an even part of the
/// vocabulary and computes it for the wanted rows of all groups.
///
/// Rows of logits are numbered in the order of the batch: by sequence, then by position.
class Head {
 public:
  /// `context` must outlive it. Local.
  explicit Head(const RankContext& context);

  /// Where the rows of the coming step come from. Local.
  void begin(const StepBatch& batch);

  /// Collective over the job.
  /// @param hidden [tokens of the group, hidden_size], of which rows `wanted` give logits
  void run(std::span<const std::int64_t> wanted, const float* hidden);

  std::int64_t rows() const { return static_cast<std::int64_t>(rows_.size()); }

  /// The largest logit of each row, on all ranks. Collective over the job.
  std::span<const LargestLogit> largest();

  /// All logits of the rows even_part(rows(), ranks, rank): [own rows, vocab_size]. Collective over
  /// the job.
  std::span<const float> logits();

  /// Of memory on one rank, at most.
  static std::int64_t buffer_bytes(const ModelConfig& config, const ModelLimits& limits, int ranks);

 private:
  Range vocabulary_of(int rank) const {
    return even_part(context_.config.vocab_size, context_.sharding.ranks, rank);
  }

  const RankContext& context_;
  std::vector<std::int64_t> rows_;         // [rows]: where they lie in hidden_, group after group
  std::vector<std::int64_t> rank_counts_;  // [ranks]: rows that each contributes
  Range contributed_;                      // of the group's rows: what this rank does

  AlignedBuffer<float> normed_;        // [rows of the group, hidden_size]
  AlignedBuffer<float> hidden_;        // [rows, hidden_size]
  AlignedBuffer<float> logits_;        // [rows, own part of the vocabulary]
  std::vector<LargestLogit> largest_;  // [rows]
  AlignedBuffer<float> received_;      // by rank: [own rows, its vocabulary]
  AlignedBuffer<float> to_send_;       // [rows, own part of the vocabulary], by rank
  AlignedBuffer<float> whole_;         // [own rows, vocab_size]
};

}  // namespace mla::dist
