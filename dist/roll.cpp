#include "dist/roll.h"

#include <map>
#include <utility>

namespace mla::dist {

Roll::Roll(int ranks, double now) : ranks_(static_cast<std::size_t>(ranks)), last_change_(now) {}

void Roll::note(int rank, const Signs& signs, double now) {
  Rank& r = ranks_[rank];
  if (!r.heard || r.signs != signs) last_change_ = now;
  r = {true, now, signs};
}

void Roll::forgive(double now) {
  for (Rank& r : ranks_) r.last_heard = now;
  last_change_ = now;
}

std::optional<int> Roll::silent_rank(double limit, double now) const {
  for (std::size_t rank = 0; rank < ranks_.size(); ++rank) {
    const Rank& r = ranks_[rank];
    if (r.heard && r.signs.phase != Phase::kEnd && now - r.last_heard >= limit) {
      return static_cast<int>(rank);
    }
  }
  return std::nullopt;
}

std::vector<int> Roll::unheard() const {
  std::vector<int> ranks;
  for (std::size_t rank = 0; rank < ranks_.size(); ++rank) {
    if (!ranks_[rank].heard) ranks.push_back(static_cast<int>(rank));
  }
  return ranks;
}

std::string Roll::who_does_what() const {
  std::map<std::pair<bool, Phase>, std::vector<int>> groups;
  for (std::size_t rank = 0; rank < ranks_.size(); ++rank) {
    const Rank& r = ranks_[rank];
    if (r.heard) groups[{r.signs.waits, r.signs.phase}].push_back(static_cast<int>(rank));
  }
  std::string text;
  for (const auto& [doing, ranks] : groups) {
    const auto& [waits, phase] = doing;
    text += (text.empty() ? "" : ", ") + list_of(ranks) +
            (waits ? " waiting in " : " at work in ") + name_of(phase);
  }
  if (const auto ranks = unheard(); !ranks.empty()) text += ", nothing known of " + list_of(ranks);
  return text;
}

std::string list_of(const std::vector<int>& ranks) {
  std::string text = ranks.size() == 1 ? "rank " : "ranks ";
  for (std::size_t i = 0; i < ranks.size();) {
    std::size_t last = i;
    while (last + 1 < ranks.size() && ranks[last + 1] == ranks[last] + 1) ++last;
    if (i > 0) text += ',';
    text += std::to_string(ranks[i]);
    if (last > i) text += '-' + std::to_string(ranks[last]);
    i = last + 1;
  }
  return text;
}

}  // namespace mla::dist
