#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace mla::dist {

/// Which positions of a sequence's new tokens give logits.
enum class WantLogits : std::uint8_t { kNone, kLast, kAll };

/// New tokens of one sequence. Those before them are in the cache.
struct StepSequence {
  int group = 0;                         ///< where its cache lies
  std::span<const std::int32_t> tokens;  ///< at least one
  std::int64_t start = 0;                ///< position of the first of them
  /// Page of each block of kPageTokens positions up to the last new token's, in the group's cache;
  /// where that is split, in the part of the rank that has these positions.
  /// Pages may be shared between sequences that are equal up to a page's last position.
  std::span<const std::int32_t> pages;
  WantLogits logits = WantLogits::kLast;
};

/// One step of the model: the same on all ranks.
struct StepBatch {
  std::vector<StepSequence> sequences;
};

}  // namespace mla::dist
