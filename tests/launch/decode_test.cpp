// What a person sees of `meshmla decode` and its companions.

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <string>
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/launch/run_command.h"

namespace mla::launch {
namespace {

using testing::HasSubstr;

constexpr const char* kTrace =
    "TIMESTAMP,ContextTokens,GeneratedTokens\n"
    "2023-11-16 18:15:46.6805900,3740,44\n"
    "2023-11-16 18:15:50.9951690,396,109\n"
    "2023-11-16 18:15:51.2225670,8790,55\n";

/// A folder with a generated batch of three requests, "batch".
class Decode : public testing::Test {
 protected:
  Decode() {
    write_file(folder_ / "trace.csv", kTrace);
    const CommandResult made = make_batch("--heads 16 --seed 7 --output " + folder_ / "batch");
    EXPECT_EQ(made.exit_code, 0) << testing::PrintToString(made.errors);
  }

  CommandResult make_batch(const std::string& options) const {
    return run_meshmla(0, "make-batch " + folder_ / "trace.csv" + " --requests 3 " + options);
  }

  TemporaryFolder folder_;
};

TEST_F(Decode, PrintsPhasesAndBalance) {
  const CommandResult result =
      run_meshmla(2, "decode " + folder_ / "batch" + " --mode kv --output " + folder_ / "results");
  EXPECT_EQ(result.exit_code, 0);
  for (const char* word :
       {"machine", "predict", "took", "load", "plan", "compute", "exchange", "merge", "write",
        "max/mean", "pieces", "partials", "2 rank(s) x 1 thread(s)"}) {
    EXPECT_THAT(result.output, HasSubstr(word));
  }
}

TEST_F(Decode, QuietPrintsNothing) {
  const CommandResult result =
      run_meshmla(2, "decode " + folder_ / "batch" + " --quiet --output " + folder_ / "results");
  EXPECT_EQ(result.exit_code, 0);
  EXPECT_EQ(result.output, "");
}

TEST_F(Decode, LeavesResultsAndAManifestAndNothingElse) {
  run_meshmla(3, "decode " + folder_ / "batch" + " --output " + folder_ / "results");
  EXPECT_THAT(folder_.files(),
              testing::ElementsAre("batch", "results", "results.manifest.json", "trace.csv"));
  const std::string manifest = read_text(folder_ / "results.manifest.json");
  for (const char* key : {"\"meshmla\"", "\"mpi\"", "\"cpu\"", "\"ranks\": 3", "\"kv_seed\": 7",
                          "\"input_hash\"", "\"seconds\""}) {
    EXPECT_THAT(manifest, HasSubstr(key));
  }
}

TEST_F(Decode, IsVerifiedByTheOracleInBothForms) {
  for (const std::string name : {"results", "results.safetensors"}) {
    run_meshmla(2, "decode " + folder_ / "batch" + " --output " + folder_ / name);
    const CommandResult verify =
        run_meshmla(0, "verify " + folder_ / "batch" + " " + folder_ / name + " --all");
    EXPECT_EQ(verify.exit_code, 0) << verify.output;
    EXPECT_THAT(verify.output, HasSubstr("verified 3 of 3 requests"));
    EXPECT_EQ(run_meshmla(0, "inspect " + folder_ / name).exit_code, 0);
  }
}

TEST_F(Decode, VerifyFindsResultsOfOtherTensors) {
  make_batch("--heads 16 --seed 8 --output " + folder_ / "other");
  run_meshmla(1, "decode " + folder_ / "other" + " --output " + folder_ / "results");
  const CommandResult verify =
      run_meshmla(0, "verify " + folder_ / "batch" + " " + folder_ / "results" + " --sample 1");
  EXPECT_EQ(verify.exit_code, 5);
  EXPECT_THAT(verify.output, HasSubstr("WRONG"));
}

TEST_F(Decode, KeepsGoingWithoutTheRequestsThatCannotRun) {
  run_meshmla(0, "make-batch " + folder_ / "trace.csv" + " --requests 3 --heads 16 --output " +
                     folder_ / "batch.txtpb");
  std::string text = read_text(folder_ / "batch.txtpb");
  const std::string length = "context_len: 396";
  text.replace(text.find(length), length.size(), "context_len: 99999");
  write_file(folder_ / "batch.txtpb", text);

  const std::string decode =
      "decode " + folder_ / "batch.txtpb" + " --output " + folder_ / "results ";
  EXPECT_EQ(run_meshmla(2, decode).exit_code, 3);
  EXPECT_EQ(run_meshmla(2, decode + "--keep-going").exit_code, 4);
  const CommandResult inspect = run_meshmla(0, "inspect " + folder_ / "results");
  EXPECT_THAT(inspect.output, HasSubstr("requests[1].block_table"));
  const CommandResult verify =
      run_meshmla(0, "verify " + folder_ / "batch.txtpb" + " " + folder_ / "results" + " --all");
  EXPECT_THAT(verify.output, HasSubstr("0 wrong, 1 failed earlier"));
}

TEST_F(Decode, LengthsOnlyCanBePlannedButNotDecoded) {
  make_batch("--lengths-only --output " + folder_ / "lengths");
  const CommandResult plan = run_meshmla(0, "plan " + folder_ / "lengths" + " --ranks 5 --pieces");
  EXPECT_EQ(plan.exit_code, 0);
  EXPECT_THAT(plan.output, HasSubstr("load max/mean"));
  EXPECT_EQ(run_meshmla(1, "decode " + folder_ / "lengths" + " --output " + folder_ / "results")
                .exit_code,
            3);
}

TEST_F(Decode, StepsOfAGrowingBatchEndWithTheBytesOfOneDecode) {
  const std::string batch = "decode " + folder_ / "batch" + " -q";
  run_meshmla(0, batch + " --output " + folder_ / "one");
  const std::string expected = read_text(folder_ / "one");
  ASSERT_FALSE(expected.empty());
  const struct {
    int ranks;
    const char* options;
  } runs[] = {{1, "--steps 2"},
              {1, "--steps 120 --threads 2"},
              {2, "--steps 120"},
              {2, "--steps 40 --mode kv --exchange p2p --threads 2"},
              {3, "--steps 120 --mode kv --exchange shm"},
              {3, "--steps 40 --mode heads"},
              {4, "--steps 120 --mode grid:2x2 --exchange alltoallv"},
              {4, "--steps 40 --mode kv --exchange two-level"},
              {4, "--steps 40 --mode batch"}};
  for (const auto& run : runs) {
    SCOPED_TRACE(std::to_string(run.ranks) + " ranks, " + run.options);
    const CommandResult result = run_meshmla(
        run.ranks, batch + " --output " + folder_ / "many" + " " + std::string(run.options));
    EXPECT_EQ(result.exit_code, 0) << testing::PrintToString(result.errors);
    EXPECT_EQ(read_text(folder_ / "many"), expected);
  }
}

TEST_F(Decode, ReportsTheStepsOfAGrowingBatch) {
  const CommandResult result =
      run_meshmla(2, "decode " + folder_ / "batch" + " --steps 5 --output " + folder_ / "results");
  EXPECT_EQ(result.exit_code, 0);
  EXPECT_THAT(result.output, HasSubstr("steps    ms, median (first): step "));
  const std::string manifest = read_text(folder_ / "results.manifest.json");
  for (const char* key : {"\"steps\": 5", "\"planned_steps\"", "\"median_seconds\"", "\"wait\""}) {
    EXPECT_THAT(manifest, HasSubstr(key));
  }
}

TEST_F(Decode, RefusesStepsThatARequestIsTooShortFor) {
  const CommandResult result = run_meshmla(
      2, "decode " + folder_ / "batch" + " --steps 397 --output " + folder_ / "results");
  EXPECT_EQ(result.exit_code, 2);
  EXPECT_THAT(result.errors,
              testing::ElementsAre(HasSubstr("--steps: 397; expected at most 396, as request '")));
}

TEST_F(Decode, StepsThatWereStoppedBeginAgain) {
  const std::string decode = "decode " + folder_ / "batch" + " -q --output ";
  run_meshmla(0, decode + folder_ / "one");
  const std::string steps = decode + folder_ / "many" + " --steps 50 ";
  EXPECT_EQ(run_meshmla(2, steps + "--max-hours 1e-9").exit_code, 75);
  EXPECT_EQ(run_meshmla(2, steps + "--resume").exit_code, 0);
  EXPECT_EQ(read_text(folder_ / "many"), read_text(folder_ / "one"));
}

TEST_F(Decode, ReadsOptionsFromAFileAndTheEnvironment) {
  write_file(folder_ / "options.ini", "[decode]\nmode=rows\n");
  const std::string decode = "decode " + folder_ / "batch" + " --output " + folder_ / "results";
  const CommandResult from_file =
      run_meshmla(0, "--config " + folder_ / "options.ini" + " " + decode);
  EXPECT_THAT(from_file.errors, testing::ElementsAre(HasSubstr("--mode: rows")));
  setenv("MESHMLA_BACKEND", "abacus", 1);
  const CommandResult from_environment = run_meshmla(0, decode);
  unsetenv("MESHMLA_BACKEND");
  EXPECT_THAT(from_environment.errors, testing::ElementsAre(HasSubstr("--backend: abacus")));
}

TEST_F(Decode, WarnsOfThreadsThatShareACore) {
  const std::string crowded = std::to_string(std::thread::hardware_concurrency() + 1);
  const CommandResult result = run_meshmla(1, "decode " + folder_ / "batch" + " --threads " +
                                                  crowded + " --output " + folder_ / "results");
  EXPECT_EQ(result.exit_code, 0);
  EXPECT_THAT(result.errors,
              testing::ElementsAre(HasSubstr("a rank runs " + crowded + " threads on ")));
}

TEST_F(Decode, RankHoldsOnlyItsShareOfTheCache) {
  std::string trace = "TIMESTAMP,ContextTokens,GeneratedTokens\n";
  for (int i = 0; i < 16; ++i) trace += "2023-11-16 18:15:46.6805900,12000,1\n";
  write_file(folder_ / "long.csv", trace);  // 16 * 12000 rows of 1152 bytes are 211 MiB
  run_meshmla(0, "make-batch " + folder_ / "long.csv" + " --requests 16 --heads 1 --output " +
                     folder_ / "long");
  const auto peak_mib = [&](int ranks) {
    run_meshmla(ranks, "decode " + folder_ / "long" + " --mode kv --output " + folder_ / "results");
    const std::string manifest = read_text(folder_ / "results.manifest.json");
    const std::string key = "\"peak_rss_bytes\": ";
    return std::stoll(manifest.substr(manifest.find(key) + key.size())) >> 20;
  };
  const auto alone = peak_mib(1);
  EXPECT_GT(alone, 211);
  EXPECT_LT(peak_mib(4), alone - 211 * 3 / 4 + 20);
}

TEST(Plan, OfARecordedTraceIsBalancedAndCutsFewRequests) {
  const std::string trace = std::string(MLA_SHARED_DIR) + "/traces/mooncake_conversation.jsonl";
  if (!std::ifstream(trace)) GTEST_SKIP() << "needs the Mooncake trace at " << trace;
  const TemporaryFolder folder;
  run_meshmla(0, "make-batch " + trace + " --requests 32 --lengths-only --output " + folder / "b");
  for (const char* ranks : {"8", "32"}) {
    const CommandResult plan =
        run_meshmla(0, "plan " + folder / "b" + " --mode kv --ranks " + ranks);
    double balance = 0;
    double pieces = 0;
    const std::size_t at = plan.output.find("load max/mean");
    ASSERT_NE(at, std::string::npos);
    ASSERT_EQ(std::sscanf(plan.output.c_str() + at, "load max/mean %lf; per request %lf pieces",
                          &balance, &pieces),
              2);
    EXPECT_LE(balance, 1.05);
    EXPECT_LE(pieces, 3);
  }
}

TEST(Command, ShowsHelpAndVersionOnceOnAnyNumberOfRanks) {
  for (const int ranks : {0, 3}) {
    const CommandResult help = run_meshmla(ranks, "--help");
    EXPECT_EQ(help.exit_code, 0);
    EXPECT_EQ(help.output.find("make-batch"), help.output.rfind("make-batch"));
    EXPECT_THAT(run_meshmla(ranks, "--version").output, HasSubstr("Open MPI"));
  }
}

}  // namespace
}  // namespace mla::launch
