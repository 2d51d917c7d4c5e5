#include "core/stop_watcher.h"

#include <algorithm>
#include <utility>

namespace mla {

StopWatcher::StopWatcher(StopRules rules, std::span<const std::int32_t> eos_ids)
    : rules_(std::move(rules)) {
  if (!rules_.ignore_eos) rules_.ids.insert(rules_.ids.end(), eos_ids.begin(), eos_ids.end());
}

std::span<const std::int32_t> StopWatcher::banned() const {
  if (tokens_ >= rules_.min_tokens) return {};
  return rules_.ids;
}

std::string StopWatcher::push(std::int32_t token, std::string_view text) {
  const bool may_stop = ++tokens_ > rules_.min_tokens;
  if (may_stop && std::ranges::find(rules_.ids, token) != rules_.ids.end()) {
    reason_ = FinishReason::kStop;
    return {};
  }
  std::string certain = may_stop ? search(text) : std::string(text);
  if (!finished() && tokens_ >= rules_.max_tokens) reason_ = FinishReason::kLength;
  return certain;
}

std::string StopWatcher::finish(std::string_view text) {
  if (text_ended_) return {};
  std::string certain = search(text);
  return certain + std::exchange(pending_, {});
}

std::string StopWatcher::search(std::string_view text) {
  pending_ += text;
  std::size_t first_end = std::string::npos;
  std::size_t cut = 0;
  for (const std::string& stop : rules_.strings) {
    const std::size_t begin = pending_.find(stop);
    if (begin == std::string::npos) continue;
    const std::size_t end = begin + stop.size();
    if (end < first_end || (end == first_end && begin < cut)) {
      first_end = end;
      cut = begin;
    }
  }
  if (first_end == std::string::npos) cut = pending_.size() - held_back();
  std::string certain = pending_.substr(0, cut);
  pending_.erase(0, cut);
  if (first_end != std::string::npos) {
    reason_ = FinishReason::kStop;
    text_ended_ = true;
    pending_.clear();
  }
  return certain;
}

/// Bytes at the end of `pending_` that a stop string begins with.
std::size_t StopWatcher::held_back() const {
  std::size_t most = 0;
  for (const std::string& stop : rules_.strings) {
    for (std::size_t n = std::min(stop.size() - 1, pending_.size()); n > most; --n) {
      if (std::string_view(pending_).ends_with(std::string_view(stop).substr(0, n))) most = n;
    }
  }
  return most;
}

}  // namespace mla
