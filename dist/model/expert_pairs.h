#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/range.h"

namespace mla::dist {

/// The (token, expert) pairs that a router chose, by expert, then by token.
struct ExpertPairs {
  Range experts;                      ///< whose pairs these are
  std::vector<std::int64_t> offsets;  ///< [experts + 1] into the pairs
  std::vector<std::int64_t> tokens;   ///< [pairs]
  std::vector<std::int64_t> places;   ///< [tokens, top_k]: of the choice, or -1: not of `experts`

  std::int64_t size() const { return static_cast<std::int64_t>(tokens.size()); }
  /// The pairs of `some` of the experts.
  Range pairs_of(Range some) const {
    return {offsets[some.begin - experts.begin], offsets[some.end - experts.begin]};
  }
  Range pairs_of(std::int64_t expert) const { return pairs_of(Range{expert, expert + 1}); }
};

/// The pairs of `experts` among `chosen` [tokens, top_k].
void sort_pairs(std::span<const std::int32_t> chosen, std::int64_t top_k, Range experts,
                ExpertPairs& pairs);

}  // namespace mla::dist
