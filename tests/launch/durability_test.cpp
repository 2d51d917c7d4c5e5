// Jobs that are stopped, killed or run out of space, and what comes after: the output has the bytes
// of an undisturbed run, and nothing else is left.

#include <chrono>
#include <csignal>
#include <cstdlib>
#include <iostream>
#include <random>
#include <string>
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include "tests/launch/mpi_job.h"
#include "tests/launch/run_command.h"

namespace mla::launch {
namespace {

using testing::AnyOf;
using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;

constexpr int kRequests = 96;

/// A batch that takes half a second or more, whose requests share a few pages.
class Durability : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    shared_ = new Shared;
    std::string trace;
    for (int i = 0; i < kRequests; ++i) {
      trace += "{\"timestamp\": 0, \"input_length\": " + std::to_string(3000 + 10 * i) +
               ", \"output_length\": 1, \"hash_ids\": [0, 1, 2, 3, 4, 5, 6, 7]}\n";
    }
    write_file(shared_->folder / "trace.jsonl", trace);
    shared_->batch = shared_->folder / "batch";
    EXPECT_EQ(
        run_meshmla(0, "make-batch " + shared_->folder / "trace.jsonl" + " --requests " +
                           std::to_string(kRequests) + " --heads 128 --output " + shared_->batch)
            .exit_code,
        0);
    const CommandResult undisturbed =
        run_meshmla(2, "decode " + shared_->batch + " --output " + shared_->folder / "expected");
    EXPECT_EQ(undisturbed.exit_code, 0);
    shared_->seconds = undisturbed.seconds;
    shared_->expected = read_text(shared_->folder / "expected");
  }
  static void TearDownTestSuite() {
    delete shared_;
    shared_ = nullptr;
  }

  std::vector<std::string> decode(const std::vector<std::string>& options) const {
    std::vector<std::string> arguments{"decode", shared_->batch,   "--output",
                                       output_,  "--step-seconds", "0.02"};
    arguments.insert(arguments.end(), options.begin(), options.end());
    return arguments;
  }
  CommandResult run_decode(int ranks, const std::string& options) const {
    return run_meshmla(ranks, "decode " + shared_->batch + " --output " + output_ +
                                  " --step-seconds 0.02 " + options);
  }

  void expect_complete() const {
    EXPECT_TRUE(read_text(output_) == shared_->expected);
    EXPECT_THAT(folder_.files(), ElementsAre("out", "out.manifest.json"));
  }

  struct Shared {
    TemporaryFolder folder;
    std::string batch;
    std::string expected;
    double seconds = 0;  ///< of an undisturbed run
  };
  static inline Shared* shared_ = nullptr;

  TemporaryFolder folder_;
  const std::string output_ = folder_ / "out";
};

TEST_F(Durability, StopsAtASignalAndGoesOnWithOtherRanksAndMode) {
  stop_midway(folder_, 3, decode({}), SIGUSR1);
  const CommandResult resumed = run_decode(2, "--resume --mode heads");
  EXPECT_EQ(resumed.exit_code, 0) << testing::PrintToString(resumed.errors);
  EXPECT_THAT(resumed.output, HasSubstr("of 96 requests are done"));
  expect_complete();
}

TEST_F(Durability, WithoutMpirunAnswersSigtermToo) {
  stop_midway(folder_, 0, decode({}), SIGTERM);
  EXPECT_EQ(run_decode(4, "--resume").exit_code, 0);
  expect_complete();
}

TEST_F(Durability, SurvivesSigtermOfMpirun) {
  MpiJob job(3, decode({}));
  wait_for_journals(folder_, job);
  ::kill(job.leader(), SIGTERM);
  EXPECT_NE(job.wait(), 0);
  EXPECT_TRUE(job.is_gone_within(30));
  EXPECT_TRUE(has_journals(folder_));
  EXPECT_EQ(run_decode(3, "--resume").exit_code, 0);
  expect_complete();
}

TEST_F(Durability, NeverUsesOrRemovesJournalsUnasked) {
  stop_midway(folder_, 2, decode({}), SIGUSR1);
  const std::vector<std::string> before = folder_.files();
  const CommandResult unasked = run_decode(2, "");
  EXPECT_EQ(unasked.exit_code, 2);
  EXPECT_THAT(unasked.errors,
              ElementsAre(AllOf(HasSubstr("out.run-1.rank-"), HasSubstr("--resume to go on"),
                                HasSubstr("--restart to discard"))));
  const CommandResult other_backend = run_decode(2, "--resume --backend reference");
  EXPECT_EQ(other_backend.exit_code, 3);
  EXPECT_THAT(other_backend.errors, ElementsAre(HasSubstr("expected backend: reference")));
  EXPECT_EQ(folder_.files(), before);
  EXPECT_EQ(run_decode(2, "--restart").exit_code, 0);
  expect_complete();
}

TEST_F(Durability, RefusesToResumeWithAnotherBatch) {
  stop_midway(folder_, 2, decode({}), SIGUSR1);
  const std::string other = folder_ / "other";
  run_meshmla(0, "make-batch " + shared_->folder / "trace.jsonl" + " --requests 96 --heads 128 " +
                     "--seed 5 --output " + other);
  const CommandResult refused =
      run_meshmla(1, "decode " + other + " --output " + output_ + " --resume");
  EXPECT_EQ(refused.exit_code, 3);
  EXPECT_THAT(refused.errors, ElementsAre(HasSubstr("of another batch")));
}

TEST_F(Durability, StopsBeforeItsTimeIsUp) {
  const CommandResult at_once = run_decode(2, "--max-hours 0.0000001");
  EXPECT_EQ(at_once.exit_code, kStopped);
  EXPECT_THAT(at_once.errors, Contains(HasSubstr("stopped with 0 of 96 requests done")));
  EXPECT_FALSE(has_journals(folder_));
  int code = kStopped;
  for (double hours = 5e-5; code == kStopped; hours *= 1.3) {
    code = run_decode(2, "--resume --max-hours " + std::to_string(hours)).exit_code;
  }
  EXPECT_EQ(code, 0);
  expect_complete();
}

TEST_F(Durability, KeepsWhatIsDoneWhenTheDiskIsFull) {
  // Files may grow to 4 MiB, as on a full disk; the results have 12.
  const std::string limited = "(trap '' XFSZ; ulimit -f 4096; " + std::string(MLA_BINARY_DIR) +
                              "/bin/meshmla decode " + shared_->batch + " --output " + output_ +
                              " --step-seconds 0.02 2>" + folder_ / "err" + ")";
  const int status = std::system(("bash -c \"" + limited + "\"").c_str());
  EXPECT_EQ(WEXITSTATUS(status), 7);
  EXPECT_THAT(read_text(folder_ / "err"), HasSubstr("out.run-1.rank-0.journal': File too large"));
  std::filesystem::remove(folder_ / "err");
  EXPECT_TRUE(has_journals(folder_));
  const CommandResult resumed = run_decode(2, "--resume");
  EXPECT_EQ(resumed.exit_code, 0);
  EXPECT_THAT(resumed.output, Not(HasSubstr("resume   0 of 96")));
  expect_complete();
}

int number_from(const char* variable, int usual) {
  const char* const text = std::getenv(variable);
  return text != nullptr ? std::atoi(text) : usual;
}

/// What the kills of a test met.
struct Kills {
  int count = 0;
  int with_journals = 0;  ///< when some results were finished
  int completed = 0;      ///< outputs that were completed in the end
};

TEST_F(Durability, SurvivesRandomKills) {
  const int wanted = number_from("MLA_KILLS", std::getenv("MLA_FULL_GRID") != nullptr ? 200 : 10);
  std::mt19937 random(static_cast<unsigned>(number_from("MLA_SEED", 1)));
  const char* const modes[] = {"auto", "kv", "heads", "batch"};
  Kills kills;
  while (kills.count < wanted || folder_.files().size() > 0) {
    const int ranks = static_cast<int>(random() % 4) + 1;
    const bool kill = kills.count < wanted;
    MpiJob job(ranks, decode({"--resume", "--mode", modes[random() % 4]}));
    if (kill) {
      const auto delay = std::uniform_real_distribution<>(0, 1.2)(random) * shared_->seconds;
      std::this_thread::sleep_for(std::chrono::duration<double>(delay));
      const auto pids = job.ranks();
      const auto victim = random() % (pids.size() + 2);  // mpirun twice as often as a rank
      const pid_t pid = victim < pids.size() ? pids[victim] : job.leader();
      if (!job.has_ended() && pid != 0) {
        ::kill(pid, SIGKILL);
        ++kills.count;
        kills.with_journals += has_journals(folder_) ? 1 : 0;
      }
    }
    const int code = job.wait();
    ASSERT_TRUE(job.is_gone_within(30));
    if (code != 0) continue;
    expect_complete();
    ++kills.completed;
    for (const std::string& file : folder_.files()) std::filesystem::remove(folder_ / file);
  }
  std::cout << kills.count << " kills, " << kills.with_journals
            << " of them with results in journals, " << kills.completed << " outputs completed\n";
  EXPECT_GT(kills.completed, 0);
}

}  // namespace
}  // namespace mla::launch
