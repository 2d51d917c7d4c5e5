#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/model_config.h"
#include "core/range.h"
#include "dist/model/step_batch.h"

namespace mla::dist {

/// What one group has to do in a step, token by token: first the tokens of all sequences that take
/// the absorbed form of attention, then those that take the MHA form.
struct GroupStep {
  /// Tokens of a sequence that take the same form.
  struct Part {
    Range tokens;            ///< of the group's tokens
    std::int64_t start = 0;  ///< position of the first of them
    std::span<const std::int32_t> pages;

    /// Positions that the last token attends to.
    std::int64_t context() const { return start + tokens.size(); }
  };
  std::vector<Part> absorbed;
  std::vector<Part> prefills;
  std::int64_t absorbed_tokens = 0;              ///< in all parts of `absorbed`
  std::vector<std::int32_t> ids;                 ///< [tokens]
  std::vector<std::int64_t> positions;           ///< [tokens]
  std::vector<const std::int32_t*> page_tables;  ///< [tokens]: `pages` of the token's sequence
  std::vector<std::int64_t> logits;  ///< the tokens whose logits are wanted, by sequence

  /// Rotation of each token's position: [tokens, qk_rope / 2].
  std::vector<float> cosines;
  std::vector<float> sines;
  std::vector<float> q_scales;  ///< [tokens]: what q is multiplied by

  std::int64_t tokens() const { return static_cast<std::int64_t>(ids.size()); }
};

/// step <- the sequences of `group`, which must stay. Local, a pure function.
/// @param inv_freq the frequencies of the job
void make_group_step(const ModelConfig& config, std::span<const float> inv_freq,
                     const StepBatch& batch, int group, GroupStep& step);

/// Tokens of each group: [groups].
std::vector<std::int64_t> tokens_of_groups(const StepBatch& batch, int groups);

/// Rows of logits that a sequence gives.
std::int64_t logits_of(const StepSequence& sequence);

}  // namespace mla::dist
