// Jobs over three hosts, which are network namespaces of this machine.

#include <cstdlib>
#include <fstream>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/launch/run_command.h"

namespace mla::launch {
namespace {

using testing::HasSubstr;

const std::string kTestbed = MLA_SOURCE_DIR "/launch/testbed --hosts 3 -- ";
const std::string kMeshmla = MLA_BINARY_DIR "/bin/meshmla ";

/// A batch of twelve requests, which keeps the reference backend busy for some seconds.
class Testbed : public testing::Test {
 protected:
  void SetUp() override {
    if (std::system((kTestbed + ("true >" + folder_ / "log" + " 2>&1")).c_str()) != 0) {
      GTEST_SKIP() << "there are no hosts here: " << read_text(folder_ / "log");
    }
    std::string trace = "TIMESTAMP,ContextTokens,GeneratedTokens\n";
    for (int i = 0; i < 12; ++i) trace += "2023-11-16 18:15:46.6805900,9000,1\n";
    write_file(folder_ / "trace.csv", trace);
    run_meshmla(0, "make-batch " + folder_ / "trace.csv" + " --requests 12 --heads 64 --seed 7 " +
                       "--output " + folder_ / "batch");
  }

  std::string decode(const std::string& output) const {
    return "decode " + folder_ / "batch" +
           " --mode kv --backend reference --quiet --step-seconds 0.5 --output " + folder_ / output;
  }

  /// Runs a job on three hosts and, once it computes, a fault as disturb.sh knows them.
  void disturb(const std::string& fault) {
    const std::string job =
        "OMP_NUM_THREADS=1 " +
        (kTestbed + ("bash " MLA_SOURCE_DIR "/tests/launch/disturb.sh " + folder_ / "outcome")) +
        " '" + fault + "' " MLA_LAUNCHER " -n 3 " + kMeshmla + decode("results") + " >" +
        folder_ / "log" + " 2>&1 </dev/null";
    EXPECT_EQ(std::system(job.c_str()), 0);
    std::ifstream(folder_ / "outcome") >> code_ >> seconds_;
    log_ = read_text(folder_ / "log");
  }

  void expect_that_nobody_waits_for_the_lost() const {
    EXPECT_EQ(code_, 6) << log_;
    EXPECT_LT(seconds_, 30) << log_;
  }

  void expect_that_resuming_gives_the_bytes_of_an_undisturbed_job() const {
    EXPECT_EQ(run_meshmla(2, decode("results") + " --resume").exit_code, 0);
    EXPECT_EQ(run_meshmla(2, decode("undisturbed")).exit_code, 0);
    EXPECT_TRUE(read_text(folder_ / "results") == read_text(folder_ / "undisturbed"));
  }

  TemporaryFolder folder_;
  int code_ = -1;     ///< exit code of a disturbed job
  int seconds_ = -1;  ///< from the disturbance until no rank was left
  std::string log_;
};

TEST_F(Testbed, ThreeHostsGiveTheBytesOfOneProcess) {
  const std::string fast = "decode " + folder_ / "batch" + " --mode kv --quiet --output ";
  const std::string over_hosts = kTestbed + (MLA_LAUNCHER " -n 3 " + kMeshmla + fast) +
                                 folder_ / "hosts" + " --threads 1 2>" + folder_ / "log";
  EXPECT_EQ(std::system(over_hosts.c_str()), 0) << read_text(folder_ / "log");
  EXPECT_THAT(read_text(folder_ / "hosts.manifest.json"), HasSubstr("\"nodes\": 3"));
  EXPECT_EQ(run_meshmla(0, fast + folder_ / "alone").exit_code, 0);
  EXPECT_TRUE(read_text(folder_ / "hosts") == read_text(folder_ / "alone"));
}

TEST_F(Testbed, KilledRankEndsTheJob) {
  disturb("kill -KILL $(rank_on host3)");
  expect_that_nobody_waits_for_the_lost();
  EXPECT_THAT(log_, HasSubstr("a rank was killed by SIGKILL"));
  if (std::getenv("MLA_FULL_GRID")) expect_that_resuming_gives_the_bytes_of_an_undisturbed_job();
}

TEST_F(Testbed, KilledDaemonEndsTheJobAndResumingCompletesIt) {
  disturb("kill -KILL $(daemon_on host2)");
  expect_that_nobody_waits_for_the_lost();
  expect_that_resuming_gives_the_bytes_of_an_undisturbed_job();
}

TEST_F(Testbed, StoppedRankEndsTheJobWithItsName) {
  disturb("kill -STOP $(rank_on host3)");
  expect_that_nobody_waits_for_the_lost();
  EXPECT_THAT(log_, HasSubstr("rank 2 on host3: no heartbeat for 10 s"));
  if (std::getenv("MLA_FULL_GRID")) expect_that_resuming_gives_the_bytes_of_an_undisturbed_job();
}

TEST_F(Testbed, StoppedFirstRankEndsTheJobWithItsName) {
  if (!std::getenv("MLA_FULL_GRID")) GTEST_SKIP() << "one stopped rank will do";
  disturb("kill -STOP $(rank_on host1)");
  expect_that_nobody_waits_for_the_lost();
  EXPECT_THAT(log_, HasSubstr("rank 0 on host1: no heartbeat for 10 s"));
  expect_that_resuming_gives_the_bytes_of_an_undisturbed_job();
}

TEST_F(Testbed, CutLinkEndsTheJobOnBothSides) {
  disturb("ip -n ${MLA_TESTBED}switch link set port2 down");
  expect_that_nobody_waits_for_the_lost();
  if (std::getenv("MLA_FULL_GRID")) expect_that_resuming_gives_the_bytes_of_an_undisturbed_job();
}

TEST_F(Testbed, SuspendedJobGoesOn) {
  if (!std::getenv("MLA_FULL_GRID")) GTEST_SKIP() << "takes half a minute";
  disturb("kill -STOP $(ranks)\nsleep 20\nkill -CONT $(ranks)");
  EXPECT_EQ(code_, 0) << log_;
}

}  // namespace
}  // namespace mla::launch
