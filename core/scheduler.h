#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <span>
#include <vector>

#include "core/page_pool.h"
#include "core/range.h"

namespace mla {

/// What the sequences of a job share.
struct SchedulerLimits {
  int groups = 1;                    ///< each with a cache of its own; a sequence lives in one
  std::int64_t pages_per_group = 0;  ///< of the cache
  std::int64_t page_tokens = 0;
  std::int64_t max_step_tokens = 0;  ///< of one step, an even share for each group
  std::int64_t max_running = 0;      ///< sequences with pages, an even share for each group
  bool share_prefixes = true;        ///< sequences that begin alike use the same pages
  /// Whole blocks of so many tokens of a prompt take a form of their own, which pages depend on
  /// (`ScheduledWork::prefill_end`). A multiple of page_tokens; 0: there is no such form.
  std::int64_t prefill_block = 0;
};

/// What to compute of one sequence in a step.
struct ScheduledWork {
  std::int64_t sequence = 0;
  int group = 0;
  Range positions;       ///< of its tokens
  bool samples = false;  ///< the last position gives the next token
  /// Positions before it lie in whole blocks of the prompt: the same in every step of a sequence,
  /// whatever has been generated since.
  std::int64_t prefill_end = 0;
};

/// Decides what each step of a job computes: continuous batching (Orca: Yu et al. 2022) over a
/// paged cache (vLLM: Kwon et al. 2023). A plan, not an executor: it knows tokens and pages, and
/// neither models nor time, so the same calls give the same steps.
///
/// Sequences start in the order in which they were added, in the group with the most free pages.
/// Every step takes one token of each sequence that generates, and fills up with prompts, the
/// oldest first, cut where the step is full. When a group runs out of pages, its youngest sequence
/// gives its own back and waits at the head of the queue, with the tokens it has; it computes them
/// again later, or finds some of its pages untouched.
class Scheduler {
 public:
  /// @throws InvalidArgument for limits that let no sequence run
  explicit Scheduler(const SchedulerLimits& limits);

  /// Tokens that one sequence may have, prompt and continuation together.
  std::int64_t max_sequence_tokens() const { return limits_.pages_per_group * limits_.page_tokens; }

  /// Adds a sequence at the end of the queue, under a name of the caller's that is not in use.
  /// Preconditions: at least one token, less than max_sequence_tokens().
  void add(std::int64_t sequence, std::vector<std::int32_t> prompt);

  /// The next step; empty if there are no sequences. Valid until the next call of any function that
  /// is not const. The one before has been computed, and every sequence that sampled was given its
  /// token or removed.
  std::span<const ScheduledWork> next_step();

  /// The next token of a sequence that sampled. A sequence with more than max_sequence_tokens()
  /// must be removed before the next step.
  void append(std::int64_t sequence, std::int32_t token);

  /// Forgets a sequence.
  void remove(std::int64_t sequence);

  /// All tokens so far, and the pages of those that are computed or about to be.
  std::span<const std::int32_t> tokens(std::int64_t sequence) const;
  std::span<const std::int32_t> pages(std::int64_t sequence) const;

  std::int64_t num_running() const { return static_cast<std::int64_t>(running_.size()); }
  std::int64_t num_waiting() const { return static_cast<std::int64_t>(waiting_.size()); }
  bool empty() const { return sequences_.empty(); }
  /// How often a sequence had to give its pages back.
  std::int64_t preemptions() const { return preemptions_; }
  /// Tokens that were found in the cache instead of computed.
  std::int64_t shared_tokens() const { return shared_tokens_; }

 private:
  struct Sequence {
    std::vector<std::int32_t> tokens;
    std::vector<std::int32_t> pages;
    std::int64_t prefill_end = 0;  // of the prompt
    std::int64_t computed = 0;     // tokens in the cache
    std::int64_t published = 0;    // pages that others may find
    int group = 0;
  };

  void finish_step();
  void publish_full_pages(Sequence& sequence);
  bool reserve(std::int64_t id, std::int64_t tokens);
  std::int64_t reserve_free(std::int64_t id, std::int64_t tokens);
  void schedule(std::int64_t id, std::int64_t most);
  void schedule_running(bool prompts);
  void start_waiting();
  bool start(std::int64_t id, int group);
  std::optional<int> group_with_room() const;
  void preempt(std::int64_t id);
  void free_pages(Sequence& sequence);

  SchedulerLimits limits_;
  std::vector<PagePool> pools_;                 // by group
  std::map<std::int64_t, Sequence> sequences_;  // by name
  std::deque<std::int64_t> waiting_;            // the next to start in front
  std::vector<std::int64_t> running_;           // the oldest in front
  std::vector<ScheduledWork> step_;
  std::vector<std::int64_t> room_;  // tokens that the step may still take, by group
  std::int64_t preemptions_ = 0;
  std::int64_t shared_tokens_ = 0;
};

}  // namespace mla
