#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace mla::dist {

/// Which positions of a sequence's new tokens give logits.
enum class WantLogits : std::uint8_t { kNone, kLast, kAll };

/// Prompts take the MHA form of attention in whole blocks of so many positions (`prefill_end`).
inline constexpr std::int64_t kPrefillBlock = 512;

/// What `StepSequence::prefill_end` is for a sequence whose prompt has `prompt_tokens` tokens.
constexpr std::int64_t prefill_end(std::int64_t prompt_tokens) {
  return prompt_tokens / kPrefillBlock * kPrefillBlock;
}

/// New tokens of one sequence. Those before them are in the cache.
struct StepSequence {
  int group = 0;                         ///< where its cache lies
  std::span<const std::int32_t> tokens;  ///< at least one
  std::int64_t start = 0;                ///< position of the first of them
  /// Positions before it take the MHA form of attention, others the absorbed one: another order of
  /// sums, so it must be the same in all steps of a sequence.
  std::int64_t prefill_end = 0;
  /// Page of each block of kPageTokens positions up to the last new token's, in the group's cache;
  /// where that is split, in the part of the rank that has these positions.
  /// Pages may be shared between sequences that are equal up to a page's last position, in tokens
  /// and in the form that these take.
  std::span<const std::int32_t> pages;
  WantLogits logits = WantLogits::kLast;
};

/// One step of the model: the same on all ranks.
struct StepBatch {
  std::vector<StepSequence> sequences;
};

}  // namespace mla::dist
