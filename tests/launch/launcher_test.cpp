// What launch/meshmla-mpirun and launch/slurm/decode.sbatch make of their surroundings, with other
// programs in the place of mpirun, srun and scontrol.

#include <cstdlib>
#include <filesystem>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>

#include "tests/launch/run_command.h"

namespace mla::launch {
namespace {

using testing::HasSubstr;
using testing::Not;

/// A folder whose programs come before the system's.
class Launcher : public testing::Test {
 protected:
  Launcher() {
    program("meshmla", "exit 0");
    program("nproc", "echo 16");
    program("lscpu", "case $1 in *node) printf '0\\n1\\n' ;; *) seq 16 ;; esac");
  }

  void program(const std::string& name, const std::string& script) const {
    write_file(folder_ / name, "#!/bin/bash\n" + script + "\n");
    std::filesystem::permissions(folder_ / name, std::filesystem::perms::owner_all);
  }

  struct Ended {
    int code;
    std::string text;  ///< standard output and error
  };
  /// Runs a shell command with nothing but `environment` ("A=1 B=2") beside PATH.
  Ended run(const std::string& environment, const std::string& command) const {
    const std::string all = "cd " + folder_ / "" + " && env -i PATH=" + folder_ / "" +
                            ":/usr/bin:/bin:/usr/sbin:/sbin " + environment + " " + command + " >" +
                            folder_ / "text" + " 2>&1 </dev/null";
    const int status = std::system(all.c_str());
    return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, read_text(folder_ / "text")};
  }
  Ended dry_run(const std::string& environment, const std::string& arguments) const {
    return run(environment, std::string(MLA_LAUNCHER) + " --dry-run " + arguments);
  }
  Ended submit(const std::string& environment) const {
    return run(environment, "bash " MLA_SOURCE_DIR "/launch/slurm/decode.sbatch in out --mode kv");
  }

  TemporaryFolder folder_;
};

TEST_F(Launcher, PrintsTheCommandInADryRun) {
  const Ended dry = dry_run("", "-n 2 meshmla decode 'a b'");
  EXPECT_EQ(dry.code, 0);
  EXPECT_THAT(dry.text, testing::StartsWith("mpirun "));
  EXPECT_THAT(dry.text, HasSubstr("--mca oob_tcp_keepalive_time 3"));
  EXPECT_THAT(dry.text, HasSubstr("-n 2 meshmla decode a\\ b"));
}

TEST_F(Launcher, GivesEveryRankCoresOfItsOwn) {
  EXPECT_THAT(dry_run("", "-n 4 meshmla").text,
              HasSubstr("--map-by ppr:4:node:PE=4 --bind-to core"));
  EXPECT_THAT(dry_run("OMP_NUM_THREADS=2", "-n 4 meshmla").text, HasSubstr("ppr:4:node:PE=2 "));
  EXPECT_THAT(dry_run("OMP_NUM_THREADS=2", "-n 4 meshmla decode --threads 3").text,
              HasSubstr("ppr:4:node:PE=3 "));
  EXPECT_THAT(dry_run("", "-n 5 --host a,b:8 meshmla").text, HasSubstr("ppr:3:node:PE=5 "));
}

TEST_F(Launcher, SharesCoresWhereThereAreTooFew) {
  EXPECT_THAT(dry_run("", "-n 17 meshmla").text, HasSubstr("--oversubscribe --bind-to none"));
}

TEST_F(Launcher, StartsARankForEachNumaDomainUnlessTold) {
  EXPECT_THAT(dry_run("", "meshmla").text, HasSubstr("-n 2 --map-by ppr:2:node:PE=8 "));
}

TEST_F(Launcher, TakesRanksAndNodesFromSlurm) {
  EXPECT_THAT(dry_run("SLURM_NTASKS=8 SLURM_JOB_NUM_NODES=4 SLURM_CPUS_PER_TASK=6", "meshmla").text,
              HasSubstr("-n 8 --map-by ppr:2:node:PE=6 "));
}

TEST_F(Launcher, CountsTheHostsOfAFile) {
  write_file(folder_ / "hosts", "# two nodes\nnode01 slots=16\n\nnode02 slots=16\n");
  EXPECT_THAT(dry_run("", "--hostfile hosts meshmla").text, HasSubstr("-n 4 --map-by ppr:2:"));
}

TEST_F(Launcher, LeavesAPlacementOrAParameterOfTheUserAlone) {
  EXPECT_THAT(dry_run("", "-n 2 --map-by node meshmla").text, Not(HasSubstr("ppr")));
  EXPECT_THAT(dry_run("OMPI_MCA_hwloc_base_binding_policy=none", "-n 2 meshmla").text,
              Not(HasSubstr("ppr")));
  EXPECT_THAT(dry_run("", "--mca oob_tcp_keepalive_time 9 meshmla").text,
              Not(HasSubstr("keepalive_time 3")));
  EXPECT_THAT(dry_run("OMPI_MCA_oob_tcp_keepalive_time=9", "meshmla").text,
              Not(HasSubstr("keepalive_time 3")));
}

TEST_F(Launcher, HandsVariablesOnToAllRanks) {
  const std::string text =
      dry_run("OMP_NUM_THREADS=2 MESHMLA_MODE=kv", "-x OMP_NUM_THREADS=4 -n 1 meshmla").text;
  EXPECT_THAT(text, HasSubstr("-x MESHMLA_MODE "));
  EXPECT_THAT(text, HasSubstr("PE=4 "));
  EXPECT_EQ(text.find("OMP_NUM_THREADS"), text.rfind("OMP_NUM_THREADS"));
}

TEST_F(Launcher, TranslatesExitCodesOfMpirun) {
  const std::pair<int, int> codes[] = {{0, 0}, {2, 2},   {3, 3},   {4, 4},   {5, 5},
                                       {6, 6}, {7, 7},   {75, 75}, {137, 6}, {205, 6},
                                       {1, 2}, {139, 6}, {255, 6}, {16, 6}};
  for (const auto& [of_mpirun, ours] : codes) {
    program("mpirun", "exit " + std::to_string(of_mpirun));
    EXPECT_EQ(run("", std::string(MLA_LAUNCHER) + " -n 1 meshmla").code, ours) << of_mpirun;
  }
  program("mpirun", "exit 137");
  EXPECT_THAT(run("", std::string(MLA_LAUNCHER) + " -n 1 meshmla").text,
              HasSubstr("a rank was killed by SIGKILL"));
}

TEST_F(Launcher, TellsAJobThatWasLostFromOneThatNeverBegan) {
  program("mpirun", "touch \"$MESHMLA_STARTED\"\nexit 1");
  EXPECT_EQ(run("", std::string(MLA_LAUNCHER) + " -n 1 meshmla").code, 6);
}

TEST_F(Launcher, RefusesAProgramThatIsNotThere) {
  const Ended ended = run("", std::string(MLA_LAUNCHER) + " -n 1 /nowhere/meshmla decode");
  EXPECT_EQ(ended.code, 2);
  EXPECT_THAT(ended.text, HasSubstr("program: /nowhere/meshmla; expected"));
}

TEST_F(Launcher, HandsSignalsOnAndIsAsInterruptedAsTheJob) {
  program("mpirun",
          "trap 'exit 75' USR1; trap 'exit 1' TERM; touch up; while :; do sleep 0.02; done");
  const auto after_signal = [&](const std::string& signal) {
    std::filesystem::remove(folder_ / "up");
    return run("", "bash -c '" MLA_LAUNCHER
                   " -n 1 meshmla & while [ ! -e up ]; do sleep 0.02; done; kill -" +
                       signal + " $!; wait $!'")
        .code;
  };
  EXPECT_EQ(after_signal("USR1"), 75);
  EXPECT_EQ(after_signal("TERM"), 143);
}

/// Slurm with PMIx, where srun ends with `code`.
class Slurm : public Launcher {
 protected:
  void srun_ends_with(int code) const {
    program("srun", "[ \"$1\" = --mpi=list ] && echo pmix && exit 0\necho srun \"$@\"\nexit " +
                        std::to_string(code));
    program("scontrol", "echo scontrol \"$@\"");
  }
};

TEST_F(Slurm, StartsTheDecodeOnAllTasks) {
  srun_ends_with(0);
  const Ended ended = submit("SLURM_JOB_ID=7 SLURM_CPUS_PER_TASK=6");
  EXPECT_EQ(ended.code, 0);
  EXPECT_THAT(ended.text, HasSubstr("srun --mpi=pmix --kill-on-bad-exit=1 --cpus-per-task=6"));
  EXPECT_THAT(ended.text, HasSubstr("meshmla decode in --output out --mode kv\n"));
  EXPECT_THAT(ended.text, Not(HasSubstr("scontrol")));
}

TEST_F(Slurm, GoesBackIntoTheQueueWhenStoppedOrWhenSomethingWasLost) {
  for (const int code : {75, 6, 137, 143}) {
    srun_ends_with(code);
    const Ended ended = submit("SLURM_JOB_ID=7");
    EXPECT_EQ(ended.code, 0);
    EXPECT_THAT(ended.text, HasSubstr("scontrol requeue 7"));
  }
}

TEST_F(Slurm, ResumesAfterARestart) {
  srun_ends_with(0);
  EXPECT_THAT(submit("SLURM_JOB_ID=7 SLURM_RESTART_COUNT=1").text,
              HasSubstr("--output out --resume --mode kv"));
}

TEST_F(Slurm, GivesUpAfterManyRestartsAndAtOnceWhereTheInputIsBad) {
  srun_ends_with(6);
  EXPECT_EQ(submit("SLURM_JOB_ID=7 SLURM_RESTART_COUNT=20").code, 6);
  srun_ends_with(3);
  const Ended bad_input = submit("SLURM_JOB_ID=7");
  EXPECT_EQ(bad_input.code, 3);
  EXPECT_THAT(bad_input.text, Not(HasSubstr("scontrol")));
}

TEST_F(Slurm, UsesMpirunWithoutPmix) {
  srun_ends_with(0);
  program("srun", "echo none");
  program("meshmla-mpirun", "echo launcher \"$@\"");
  EXPECT_THAT(submit("SLURM_JOB_ID=7").text, HasSubstr("launcher meshmla decode in"));
}

TEST_F(Slurm, HandsTheWarningOfTheTimeLimitOnToTheRanks) {
  srun_ends_with(0);
  program("srun",
          "[ \"$1\" = --mpi=list ] && echo pmix && exit 0\n"
          "trap 'exit 75' USR1; touch up; while :; do sleep 0.02; done");
  const Ended ended =
      run("SLURM_JOB_ID=7", "bash -c 'bash " MLA_SOURCE_DIR
                            "/launch/slurm/decode.sbatch in out & while [ ! -e up ]; do sleep "
                            "0.02; done; kill -USR1 $!; wait $!'");
  EXPECT_THAT(ended.text, HasSubstr("scontrol requeue 7"));
}

}  // namespace
}  // namespace mla::launch
