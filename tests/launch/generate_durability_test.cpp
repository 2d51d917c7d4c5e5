// `meshmla generate` stopped, killed and resumed: the answers have the bytes of an undisturbed run,
// and nothing else is left.

#include <chrono>
#include <csignal>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include "tests/launch/mpi_job.h"
#include "tests/launch/run_command.h"

namespace mla::launch {
namespace {

using testing::Contains;
using testing::ContainsRegex;
using testing::ElementsAre;
using testing::HasSubstr;

constexpr int kPeerLost = 6;  // exit code of a job that has lost a rank
constexpr int kNumRequests = 48;
const std::string kModel = MLA_SOURCE_DIR "/launch/demo/model";

/// Requests whose answers come one after another; the last one cannot run.
std::string requests_text(int tokens) {
  std::string text;
  for (int i = 0; i < kNumRequests; ++i) {
    const std::string prompt = i + 1 < kNumRequests ? "[1,2," + std::to_string(i) + "]" : "[]";
    text += "{\"custom_id\":\"r" + std::to_string(i) +
            "\",\"method\":\"POST\",\"url\":\"/v1/completions\",\"body\":{\"prompt\":" + prompt +
            ",\"temperature\":0.9,\"ignore_eos\":true,\"max_tokens\":" +
            std::to_string(tokens + i % 5) + "}}\n";
  }
  return text;
}

class GenerateDurability : public testing::Test {
 protected:
  static constexpr int kCode = 4;  // one request fails

  static void SetUpTestSuite() {
    shared_ = new Shared;
    write_file(shared_->requests, requests_text(12));
    EXPECT_EQ(run_meshmla(2, "generate " + kModel + " " + shared_->requests + " --quiet -o " +
                                 shared_->folder / "expected")
                  .exit_code,
              kCode);
    shared_->expected = read_text(shared_->folder / "expected");
  }
  static void TearDownTestSuite() {
    delete shared_;
    shared_ = nullptr;
  }

  /// Few at a time, so that there is something to disturb.
  std::vector<std::string> generate() const {
    return {"generate", kModel, shared_->requests, "-o", output_, "--max-running", "2"};
  }
  CommandResult run_generate(int ranks, const std::string& options) const {
    return run_meshmla(
        ranks, "generate " + kModel + " " + shared_->requests + " -o " + output_ + " " + options);
  }
  void expect_complete() const {
    EXPECT_EQ(read_text(output_), shared_->expected);
    EXPECT_THAT(folder_.files(), ElementsAre("out"));
  }

  struct Shared {
    TemporaryFolder folder;
    std::string requests = folder / "requests.jsonl";
    std::string expected;
  };
  static inline Shared* shared_ = nullptr;

  TemporaryFolder folder_;
  const std::string output_ = folder_ / "out";
};

TEST_F(GenerateDurability, StopsAtASignalAndGoesOnWithOtherRanksAndSharding) {
  stop_midway(folder_, 3, generate(), SIGUSR1);
  EXPECT_EQ(run_generate(2, "--resume --sharding heads --quiet").exit_code, kCode);
  expect_complete();
}

TEST_F(GenerateDurability, StopsWhenItsTimeIsUp) {
  const CommandResult stopped = run_generate(2, "--max-hours 0.0000001");
  EXPECT_EQ(stopped.exit_code, kStopped);
  EXPECT_THAT(stopped.errors, Contains(HasSubstr("stopped with ")));
  EXPECT_EQ(run_generate(1, "--resume --max-hours 1").exit_code, kCode);
  expect_complete();
}

TEST_F(GenerateDurability, NeverUsesOrRemovesAnswersUnasked) {
  stop_midway(folder_, 0, generate(), SIGTERM);
  const std::vector<std::string> before = folder_.files();
  const CommandResult unasked = run_generate(2, "");
  EXPECT_EQ(unasked.exit_code, 2);
  EXPECT_THAT(unasked.errors,
              ElementsAre(AllOf(HasSubstr("out.run-1.rank-0"), HasSubstr("--resume to go on"),
                                HasSubstr("--restart to discard"))));
  const CommandResult other_settings = run_generate(2, "--resume --seed 5");
  EXPECT_EQ(other_settings.exit_code, 3);
  EXPECT_THAT(other_settings.errors, ElementsAre(HasSubstr("of a job with seed: 0; expected")));

  write_file(folder_ / "other.jsonl", requests_text(13));
  const CommandResult other_requests = run_meshmla(
      1, "generate " + kModel + " " + folder_ / "other.jsonl" + " --resume -o " + output_);
  EXPECT_EQ(other_requests.exit_code, 3);
  EXPECT_THAT(other_requests.errors, ElementsAre(HasSubstr("of another file of requests")));
  std::filesystem::remove(folder_ / "other.jsonl");

  EXPECT_EQ(folder_.files(), before);
  EXPECT_EQ(run_generate(2, "--restart").exit_code, kCode);
  expect_complete();
}

TEST_F(GenerateDurability, SaysWhoDoesWhatWhenARankHangs) {
  {
    std::vector<std::string> arguments = generate();
    arguments.insert(arguments.end(), {"--timeout", "2"});
    MpiJob job(3, arguments);
    wait_for_journals(folder_, job);
    const pid_t victim = job.ranks()[1];
    ASSERT_NE(victim, 0);
    ::kill(victim, SIGSTOP);
    EXPECT_EQ(job.wait(), kPeerLost);
    EXPECT_THAT(job.errors(), Contains(ContainsRegex(
                                  "no progress for 2 s: .*ranks? [0-2].* in [a-z]+.*; expected "
                                  "some within --timeout; rank 0 on .*, ends the job")));
    EXPECT_TRUE(job.is_gone_within(30));
  }
  EXPECT_EQ(run_generate(2, "--resume --quiet").exit_code, kCode);
  expect_complete();
}

TEST_F(GenerateDurability, SurvivesAKillAtARandomMoment) {
  std::mt19937 random(std::random_device{}());
  {
    MpiJob job(2, generate());
    wait_for_journals(folder_, job);
    const int milliseconds = std::uniform_int_distribution<>(0, 300)(random);
    SCOPED_TRACE(milliseconds);
    std::this_thread::sleep_for(std::chrono::milliseconds(milliseconds));
    const auto pids = job.ranks();
    const pid_t victim = pids[random() % pids.size()];
    if (victim != 0) ::kill(victim, SIGKILL);
    job.wait();
    ASSERT_TRUE(job.is_gone_within(30));
  }
  EXPECT_EQ(run_generate(2, "--resume --quiet").exit_code, kCode);
  expect_complete();
}

}  // namespace
}  // namespace mla::launch
