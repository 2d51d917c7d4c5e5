#include "dist/model/expert_pairs.h"

#include <numeric>

namespace mla::dist {

void sort_pairs(std::span<const std::int32_t> chosen, std::int64_t top_k, Range experts,
                ExpertPairs& pairs) {
  const auto is_wanted = [&](std::int64_t e) { return e >= experts.begin && e < experts.end; };
  pairs.experts = experts;
  // Until the end, entry e + 1 is where the next pair of e goes.
  pairs.offsets.assign(experts.size() + 2, 0);
  for (const std::int32_t e : chosen) {
    if (is_wanted(e)) ++pairs.offsets[e - experts.begin + 2];
  }
  std::partial_sum(pairs.offsets.begin(), pairs.offsets.end(), pairs.offsets.begin());
  pairs.tokens.resize(pairs.offsets.back());
  pairs.places.resize(chosen.size());
  for (std::size_t i = 0; i < chosen.size(); ++i) {
    if (!is_wanted(chosen[i])) {
      pairs.places[i] = -1;
      continue;
    }
    pairs.places[i] = pairs.offsets[chosen[i] - experts.begin + 1]++;
    pairs.tokens[pairs.places[i]] = static_cast<std::int64_t>(i) / top_k;
  }
  pairs.offsets.pop_back();
}

}  // namespace mla::dist
