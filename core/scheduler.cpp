#include "core/scheduler.h"

#include <algorithm>
#include <cassert>
#include <string>
#include <utility>

#include "core/error.h"

namespace mla {
namespace {

void check(const char* field, std::int64_t value, std::int64_t least) {
  if (value >= least) return;
  throw InvalidArgument(field, std::to_string(value), "at least " + std::to_string(least));
}

}  // namespace

Scheduler::Scheduler(const SchedulerLimits& limits) : limits_(limits) {
  check("groups", limits.groups, 1);
  check("page_tokens", limits.page_tokens, 1);
  check("pages_per_group", limits.pages_per_group, 1);
  check("max_running", limits.max_running, limits.groups);
  check("max_step_tokens", limits.max_step_tokens, limits.max_running);
  if (limits.prefill_block < 0 || limits.prefill_block % limits.page_tokens != 0) {
    throw InvalidArgument("prefill_block", std::to_string(limits.prefill_block),
                          "a multiple of page_tokens, " + std::to_string(limits.page_tokens));
  }
  for (int g = 0; g < limits.groups; ++g) {
    pools_.emplace_back(limits.pages_per_group, limits.page_tokens);
  }
  room_.resize(limits.groups);
}

void Scheduler::add(std::int64_t id, std::vector<std::int32_t> prompt) {
  assert(!prompt.empty() && std::ssize(prompt) < max_sequence_tokens());
  assert(!sequences_.contains(id));
  Sequence& sequence = sequences_[id];
  sequence.tokens = std::move(prompt);
  if (const std::int64_t block = limits_.prefill_block; block > 0) {
    sequence.prefill_end = std::ssize(sequence.tokens) / block * block;
  }
  waiting_.push_back(id);
}

std::span<const std::int32_t> Scheduler::tokens(std::int64_t id) const {
  return sequences_.at(id).tokens;
}

std::span<const std::int32_t> Scheduler::pages(std::int64_t id) const {
  return sequences_.at(id).pages;
}

void Scheduler::append(std::int64_t id, std::int32_t token) {
  sequences_.at(id).tokens.push_back(token);
}

void Scheduler::remove(std::int64_t id) {
  Sequence& sequence = sequences_.at(id);
  // What the last step computed may serve others.
  for (const ScheduledWork& work : step_) {
    if (work.sequence == id) sequence.computed = work.positions.end;
  }
  std::erase_if(step_, [&](const ScheduledWork& work) { return work.sequence == id; });
  publish_full_pages(sequence);
  free_pages(sequence);
  std::erase(running_, id);
  std::erase(waiting_, id);
  sequences_.erase(id);
}

std::span<const ScheduledWork> Scheduler::next_step() {
  finish_step();
  std::fill(room_.begin(), room_.end(), limits_.max_step_tokens / limits_.groups);
  schedule_running(/*prompts=*/false);
  schedule_running(/*prompts=*/true);
  start_waiting();
  return step_;
}

/// Those that generate, or those that still compute what they have.
void Scheduler::schedule_running(bool prompts) {
  for (std::size_t i = 0; i < running_.size();) {
    const std::int64_t id = running_[i];
    const Sequence& sequence = sequences_.at(id);
    const bool is_prompt = sequence.computed + 1 < std::ssize(sequence.tokens);
    if (is_prompt == prompts) schedule(id, room_[sequence.group]);
    // Only this one or younger ones, which come later, can have been preempted.
    if (i < running_.size() && running_[i] == id) ++i;
  }
}

/// What the last step computed is in the cache now.
void Scheduler::finish_step() {
  for (const ScheduledWork& work : step_) {
    Sequence& sequence = sequences_.at(work.sequence);
    sequence.computed = work.positions.end;
    publish_full_pages(sequence);
  }
  step_.clear();
}

void Scheduler::publish_full_pages(Sequence& sequence) {
  if (!limits_.share_prefixes) return;
  const std::int64_t size = limits_.page_tokens;
  for (; (sequence.published + 1) * size <= sequence.computed; ++sequence.published) {
    const std::int64_t p = sequence.published;
    pools_[sequence.group].publish(
        sequence.pages[p], p == 0 ? std::nullopt : std::optional(sequence.pages[p - 1]),
        std::span(sequence.tokens).subspan(p * size, size), p * size < sequence.prefill_end);
  }
}

/// Gives the sequence pages for its first `tokens` tokens, or for as many of them as there are
/// pages that nobody uses. Returns how many of these tokens have pages.
std::int64_t Scheduler::reserve_free(std::int64_t id, std::int64_t tokens) {
  Sequence& sequence = sequences_.at(id);
  PagePool& pool = pools_[sequence.group];
  while (std::ssize(sequence.pages) * limits_.page_tokens < tokens && pool.available() > 0) {
    sequence.pages.push_back(pool.take());
  }
  return std::min(tokens, std::ssize(sequence.pages) * limits_.page_tokens);
}

/// The same, if need be with pages of younger sequences. If that is not enough, the sequence itself
/// gives way. Returns whether it still runs.
bool Scheduler::reserve(std::int64_t id, std::int64_t tokens) {
  const int group = sequences_.at(id).group;
  while (reserve_free(id, tokens) < tokens) {
    const auto youngest = std::find_if(running_.rbegin(), running_.rend(), [&](std::int64_t other) {
      return sequences_.at(other).group == group;
    });
    const bool is_itself = *youngest == id;
    preempt(*youngest);
    if (is_itself) return false;
  }
  return true;
}

/// Takes up to `most` tokens of a running sequence into the step: if any, at least one, for which
/// younger sequences give way.
void Scheduler::schedule(std::int64_t id, std::int64_t most) {
  Sequence& sequence = sequences_.at(id);
  if (most <= 0 || !reserve(id, sequence.computed + 1)) return;
  const std::int64_t all = std::ssize(sequence.tokens);
  const std::int64_t end = reserve_free(id, std::min(all, sequence.computed + most));
  room_[sequence.group] -= end - sequence.computed;
  step_.push_back({.sequence = id,
                   .group = sequence.group,
                   .positions = {sequence.computed, end},
                   .samples = end == all,
                   .prefill_end = sequence.prefill_end});
}

/// Starts sequences of the queue while there is room for the next one: tokens in the step, and
/// pages for all it has and one more.
void Scheduler::start_waiting() {
  while (!waiting_.empty()) {
    const std::optional<int> group = group_with_room();
    if (!group || !start(waiting_.front(), *group)) return;
    waiting_.pop_front();
  }
}

/// Of the groups that may run another sequence in this step, the one with the most free pages.
std::optional<int> Scheduler::group_with_room() const {
  std::optional<int> best;
  for (int g = 0; g < limits_.groups; ++g) {
    const auto running = std::count_if(running_.begin(), running_.end(), [&](std::int64_t id) {
      return sequences_.at(id).group == g;
    });
    if (room_[g] <= 0 || running >= limits_.max_running / limits_.groups) continue;
    if (!best || pools_[g].available() > pools_[*best].available()) best = g;
  }
  return best;
}

bool Scheduler::start(std::int64_t id, int group) {
  Sequence& sequence = sequences_.at(id);
  const std::int64_t tokens = std::ssize(sequence.tokens);
  sequence.group = group;
  if (limits_.share_prefixes) {
    // The last token is computed in any case, since its logits are wanted.
    sequence.pages = pools_[group].find_prefix(std::span(sequence.tokens).first(tokens - 1),
                                               sequence.prefill_end);
  }
  const std::int64_t found = std::ssize(sequence.pages);
  const std::int64_t wanted = std::min(tokens + 1, max_sequence_tokens());
  if (found + pools_[group].available() < ceil_div(wanted, limits_.page_tokens)) {
    free_pages(sequence);
    return false;
  }
  sequence.computed = found * limits_.page_tokens;
  sequence.published = found;
  shared_tokens_ += sequence.computed;
  running_.push_back(id);
  schedule(id, room_[group]);
  return true;
}

void Scheduler::preempt(std::int64_t id) {
  Sequence& sequence = sequences_.at(id);
  std::erase_if(step_, [&](const ScheduledWork& work) {
    if (work.sequence != id) return false;
    room_[work.group] += work.positions.size();
    return true;
  });
  free_pages(sequence);
  std::erase(running_, id);
  waiting_.push_front(id);
  ++preemptions_;
}

/// The last pages first: those at the start are the likeliest to be shared, and go last.
void Scheduler::free_pages(Sequence& sequence) {
  for (; !sequence.pages.empty(); sequence.pages.pop_back()) {
    pools_[sequence.group].give_back(sequence.pages.back());
  }
  sequence.computed = 0;
  sequence.published = 0;
}

}  // namespace mla
