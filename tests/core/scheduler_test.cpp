#include "core/scheduler.h"

#include <algorithm>
#include <map>
#include <numeric>
#include <random>
#include <set>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#ifdef MLA_HAVE_RAPIDCHECK
#include <rapidcheck.h>
#endif

#include "core/error.h"

namespace mla {
namespace {

using Tokens = std::vector<std::int32_t>;

SchedulerLimits small_limits() {
  return {.groups = 1,
          .pages_per_group = 8,
          .page_tokens = 4,
          .max_step_tokens = 8,
          .max_running = 4,
          .share_prefixes = true};
}

Tokens numbers(std::int64_t count, std::int32_t first = 0) {
  Tokens tokens(count);
  std::iota(tokens.begin(), tokens.end(), first);
  return tokens;
}

/// A model that only remembers: what each place of the cache holds, as the tokens up to it and how
/// many of them took the form of prompts. Every next token is a function of the sequence so far, so
/// any mistake changes what comes out.
class Job {
 public:
  explicit Job(const SchedulerLimits& limits) : limits_(limits), scheduler_(limits) {}

  void add(std::int64_t id, Tokens prompt, std::int64_t max_tokens) {
    ends_[id] = std::ssize(prompt) + max_tokens;
    const std::int64_t block = limits_.prefill_block;
    prefill_ends_[id] = block == 0 ? 0 : std::ssize(prompt) / block * block;
    scheduler_.add(id, std::move(prompt));
  }

  /// Runs a step; false if there is nothing to do.
  bool step() {
    const auto span = scheduler_.next_step();
    const std::vector<ScheduledWork> step(span.begin(), span.end());
    if (step.empty()) return false;
    check_room(step);
    for (const ScheduledWork& work : step) compute(work);
    for (const ScheduledWork& work : step) {
      if (work.samples) sample(work.sequence);
    }
    return true;
  }

  void run() {
    for (int i = 0; !scheduler_.empty(); ++i) {
      ASSERT_LT(i, 100'000);
      ASSERT_TRUE(step());
    }
  }

  static std::int32_t next_token(std::span<const std::int32_t> tokens) {
    std::int64_t sum = 17;
    for (const std::int32_t token : tokens) sum = (sum * 31 + token) % 1009;
    return static_cast<std::int32_t>(sum % 5);
  }

  Scheduler& scheduler() { return scheduler_; }
  std::map<std::int64_t, Tokens> finished;

 private:
  void check_room(const std::vector<ScheduledWork>& step) const {
    std::int64_t tokens = 0;
    std::set<std::int64_t> sequences;
    for (const ScheduledWork& work : step) {
      tokens += work.positions.size();
      ASSERT_GE(work.positions.size(), 1);
      ASSERT_TRUE(sequences.insert(work.sequence).second);
    }
    ASSERT_LE(tokens, limits_.max_step_tokens);
    ASSERT_LE(scheduler_.num_running(), limits_.max_running);
  }

  void compute(const ScheduledWork& work) {
    const auto tokens = scheduler_.tokens(work.sequence);
    const auto pages = scheduler_.pages(work.sequence);
    ASSERT_EQ(work.prefill_end, prefill_ends_[work.sequence]);
    for (std::int64_t p = 0; p < work.positions.end; ++p) {
      const auto page = pages[p / limits_.page_tokens];
      Tokens& place = cache_[{work.group, page, p % limits_.page_tokens}];
      Tokens so_far(tokens.begin(), tokens.begin() + p + 1);
      so_far.push_back(static_cast<std::int32_t>(std::min(work.prefill_end, p + 1)));
      if (p >= work.positions.begin) place = so_far;
      ASSERT_EQ(place, so_far) << "position " << p << " of sequence " << work.sequence;
    }
    ASSERT_EQ(work.samples, work.positions.end == std::ssize(tokens));
  }

  void sample(std::int64_t id) {
    const std::int32_t token = next_token(scheduler_.tokens(id));
    scheduler_.append(id, token);
    const auto tokens = scheduler_.tokens(id);
    if (std::ssize(tokens) < ends_[id]) return;
    finished[id] = Tokens(tokens.begin(), tokens.end());
    scheduler_.remove(id);
  }

  SchedulerLimits limits_;
  Scheduler scheduler_;
  std::map<std::int64_t, std::int64_t> ends_;
  std::map<std::int64_t, std::int64_t> prefill_ends_;
  std::map<std::tuple<int, std::int32_t, std::int64_t>, Tokens> cache_;
};

Tokens expected(Tokens tokens, std::int64_t max_tokens) {
  for (std::int64_t i = 0; i < max_tokens; ++i) tokens.push_back(Job::next_token(tokens));
  return tokens;
}

TEST(Scheduler, CutsALongPromptIntoSteps) {
  Job job(small_limits());
  job.add(5, numbers(20), 1);
  std::vector<Range> positions;
  for (int i = 0; i < 3; ++i) positions.push_back(job.scheduler().next_step()[0].positions);
  EXPECT_THAT(positions, testing::ElementsAre(Range{0, 8}, Range{8, 16}, Range{16, 20}));
}

TEST(Scheduler, LetsGenerationGoOnBesideAPrompt) {
  Job job(small_limits());
  job.add(0, numbers(3), 10);
  job.step();
  job.add(1, numbers(20, 100), 1);
  const auto step = job.scheduler().next_step();
  ASSERT_EQ(step.size(), 2U);
  EXPECT_EQ(step[0].positions, (Range{3, 4}));
  EXPECT_EQ(step[1].positions, (Range{0, 7}));
  EXPECT_FALSE(step[1].samples);
}

TEST(Scheduler, ComputesACommonBeginningOnce) {
  Job job(small_limits());
  job.add(0, numbers(9), 3);
  job.step();
  job.step();
  job.add(1, numbers(10), 3);
  job.run();
  EXPECT_EQ(job.scheduler().shared_tokens(), 8);
  EXPECT_EQ(job.finished[1], expected(numbers(10), 3));
}

TEST(Scheduler, SharesPagesWhereBothPromptsTakeTheSameForm) {
  SchedulerLimits limits = small_limits();
  limits.prefill_block = 8;
  Job job(limits);
  job.add(0, numbers(13), 2);  // positions 0 to 7 take the form of prompts
  job.run();
  job.add(1, numbers(15), 2);  // as well
  job.run();
  EXPECT_EQ(job.scheduler().shared_tokens(), 12);
  job.add(2, numbers(17), 2);  // 0 to 15
  job.run();
  EXPECT_EQ(job.scheduler().shared_tokens(), 12 + 8);
  job.add(3, numbers(7), 2);  // none
  job.run();
  EXPECT_EQ(job.scheduler().shared_tokens(), 12 + 8);
}

TEST(Scheduler, ComputesTheLastTokenOfAPromptThatIsWhollyInTheCache) {
  Job job(small_limits());
  job.add(0, numbers(8), 4);
  job.run();
  job.add(1, numbers(8), 4);
  job.run();
  EXPECT_EQ(job.scheduler().shared_tokens(), 4);
  EXPECT_EQ(job.finished[1], job.finished[0]);
}

TEST(Scheduler, PreemptsTheYoungestWhenPagesRunOut) {
  Job job(small_limits());
  job.add(0, numbers(14), 16);
  job.add(1, numbers(14, 50), 16);
  job.run();
  EXPECT_GE(job.scheduler().preemptions(), 1);
  EXPECT_EQ(job.finished[0], expected(numbers(14), 16));
  EXPECT_EQ(job.finished[1], expected(numbers(14, 50), 16));
}

TEST(Scheduler, SpreadsSequencesOverGroups) {
  SchedulerLimits limits = small_limits();
  limits.groups = 2;
  Job job(limits);
  job.add(0, numbers(4), 4);
  job.add(1, numbers(4), 4);
  const auto step = job.scheduler().next_step();
  ASSERT_EQ(step.size(), 2U);
  EXPECT_NE(step[0].group, step[1].group);
}

TEST(Scheduler, RefusesLimitsUnderWhichNothingCanRun) {
  SchedulerLimits limits = small_limits();
  limits.max_step_tokens = 3;
  EXPECT_THROW(Scheduler{limits}, InvalidArgument);
  limits = small_limits();
  limits.prefill_block = 6;
  EXPECT_THROW(Scheduler{limits}, InvalidArgument) << "not whole pages";
}

#ifdef MLA_HAVE_RAPIDCHECK
TEST(SchedulerProperty, EverySequenceGetsItsTokensWhateverTheLimits) {
  rc::check([] {
    SchedulerLimits limits;
    limits.groups = *rc::gen::inRange(1, 4);
    limits.page_tokens = *rc::gen::inRange(1, 6);
    limits.pages_per_group = *rc::gen::inRange(2, 12);
    limits.max_running = *rc::gen::inRange(limits.groups, 9);
    limits.max_step_tokens = *rc::gen::inRange(limits.max_running, std::int64_t{20});
    limits.share_prefixes = *rc::gen::arbitrary<bool>();
    limits.prefill_block = limits.page_tokens * *rc::gen::inRange(0, 4);
    Job job(limits);
    const std::int64_t most = limits.pages_per_group * limits.page_tokens;
    std::map<std::int64_t, Tokens> wanted;
    const int count = *rc::gen::inRange(1, 15);
    for (int id = 0; id < count; ++id) {
      const auto length = *rc::gen::inRange(std::int64_t{1}, most);
      // Few different tokens, so that prefixes are often the same.
      const Tokens prompt = *rc::gen::container<Tokens>(
          length, rc::gen::weightedElement<std::int32_t>({{9, 1}, {1, 2}}));
      const auto max_tokens = *rc::gen::inRange(std::int64_t{1}, most - length + 2);
      job.add(id, prompt, max_tokens);
      wanted[id] = expected(prompt, max_tokens);
      for (int steps = *rc::gen::inRange(0, 4); steps > 0; --steps) job.step();
    }
    job.run();
    RC_ASSERT(!testing::Test::HasFatalFailure());
    RC_ASSERT(job.finished == wanted);
  });
}
#endif

}  // namespace
}  // namespace mla
