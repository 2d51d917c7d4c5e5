// What a person sees of `meshmla bench`. Contents and speed are not its matter.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "tests/launch/run_command.h"

namespace mla::launch {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

constexpr const char* kQuick =
    "bench --hot --heads 4 --seqlen 100,200 --shape 48/32 --repeats 1 --seconds 0 ";

TEST(Bench, PrintsARowForEachPointAndNothingElseOnStandardOutput) {
  const CommandResult result =
      run_meshmla(0, std::string(kQuick) + "--batch 2 --no-limits --format json");
  EXPECT_EQ(result.exit_code, 0);
  const auto json = nlohmann::json::parse(result.output);
  ASSERT_EQ(json["rows"].size(), 2U);
  EXPECT_EQ(json["rows"][1]["seqlen"], 200);
  EXPECT_EQ(json["rows"][1]["check"], "right");
}

TEST(Bench, ComparesWithTheMachinesLimitsUnlessToldNotTo) {
  const CommandResult result = run_meshmla(0, std::string(kQuick) + "--threads 1");
  EXPECT_EQ(result.exit_code, 0);
  EXPECT_THAT(result.output, HasSubstr("reads: "));
  EXPECT_THAT(result.output, HasSubstr("on 1 thread(s)"));
  EXPECT_THAT(run_meshmla(0, std::string(kQuick) + "--no-limits").output,
              testing::Not(HasSubstr("reads: ")));
}

TEST(Bench, ComparesTheFusedProjectionsWithSteps) {
  const CommandResult result =
      run_meshmla(0, std::string(kQuick) +
                         "--backend portable --projected --nope 32 --v-head 16 --format json");
  EXPECT_EQ(result.exit_code, 0);
  const auto json = nlohmann::json::parse(result.output);
  ASSERT_EQ(json["rows"].size(), 6U * 2);  // batches of 1, 8 and 64
  EXPECT_EQ(json["rows"][0]["name"], "portable fused");
  EXPECT_TRUE(json["rows"][0]["ours_faster"].is_null());
  EXPECT_EQ(json["rows"][1]["name"], "portable steps");
  EXPECT_GT(json["rows"][1]["ours_faster"], 0);
  for (const auto& row : json["rows"]) EXPECT_EQ(row["check"], "right");
}

TEST(Bench, MeasuresLinearLayers) {
  const CommandResult result =
      run_meshmla(0,
                  "bench --linear --hot --layers 48x64,3:16x33 --tokens 1,9 --threads 2 --backend "
                  "portable --repeats 1 --seconds 0");
  EXPECT_EQ(result.exit_code, 0);
  EXPECT_THAT(result.output, HasSubstr("| 48x64 | 9 |"));
  EXPECT_THAT(result.output, HasSubstr("| 3:16x33 | 1 |"));
  EXPECT_THAT(result.output, HasSubstr("| right |"));
  EXPECT_EQ(run_meshmla(0, "bench --linear --layers 48").exit_code, 2);
}

TEST(Bench, MeasuresAModelOnAllRanks) {
  const std::string command =
      "bench --model " MLA_SOURCE_DIR
      "/tests/data/models/deepseek_v2_lite --batch 3 --seqlen 100 --steps 2 --threads 1 ";
  for (const char* sharding : {"heads", "requests", "kv"}) {
    const CommandResult result = run_meshmla(2, command + "--sharding " + sharding);
    EXPECT_EQ(result.exit_code, 0);
    EXPECT_THAT(result.output, HasSubstr("3 request(s) of 100 tokens: "));
    EXPECT_THAT(result.output, HasSubstr("| experts | "));
  }
  EXPECT_EQ(run_meshmla(0, "bench --model nothing").exit_code, 2);
}

TEST(Bench, TakesBatchesOfDifferentLengths) {
  const auto rows_of = [](const std::string& options) {
    const CommandResult result =
        run_meshmla(0,
                    "bench --hot --shape 48/32 --repeats 1 --seconds 0 --no-limits --format json "
                    "--backend portable " +
                        options);
    EXPECT_EQ(result.exit_code, 0) << options;
    return nlohmann::json::parse(result.output)["rows"];
  };
  const auto listed = rows_of("--heads 2 --lengths 100,5,30");
  ASSERT_EQ(listed.size(), 1U);
  EXPECT_EQ(listed[0]["seqlen"], "~45");
  EXPECT_EQ(listed[0]["seqlens"], nlohmann::json({100, 5, 30}));
  EXPECT_EQ(listed[0]["check"], "right");
  const auto drawn = rows_of("--heads 2 --seqlen 100 --batch 7 --varlen");
  EXPECT_EQ(drawn[0]["seqlens"].size(), 7U);
  const TemporaryFolder folder;
  write_file(folder / "rows", "2 1 4 100\n2 2 4 7,80  # b s_q h s\n");
  write_file(folder / "trace.csv",
             "TIMESTAMP,ContextTokens,GeneratedTokens\n2024-05-10 00:00:00.009930+00:00,20,1\n"
             "2024-05-10 00:00:01.009930+00:00,60,1\n");
  EXPECT_EQ(rows_of("--rows " + (folder / "rows"))[1]["s_q"], 2);
  EXPECT_EQ(rows_of("--heads 2 --requests 2 --trace " + (folder / "trace.csv"))[0]["seqlens"],
            nlohmann::json({20, 60}));
}

TEST(Bench, WritesAFile) {
  const TemporaryFolder folder;
  const CommandResult result = run_meshmla(
      1, std::string(kQuick) + "--no-limits --format csv --output " + folder / "rows.csv");
  EXPECT_EQ(result.exit_code, 0);
  EXPECT_EQ(result.output, "");
  EXPECT_THAT(folder.files(), ElementsAre("rows.csv"));
  EXPECT_THAT(read_text(folder / "rows.csv"), HasSubstr("\nname,dtype,"));
}

TEST(Bench, SaysWhichPointsItLeavesOut) {
  const CommandResult result =
      run_meshmla(0, std::string(kQuick) + "--no-limits --batch 1,16k --max-cache 1");
  EXPECT_EQ(result.exit_code, 0);
  EXPECT_THAT(result.output, HasSubstr("left out for --max-cache 1: bf16 48/32, 4 heads, batch "
                                       "16384 of 100 tokens"));
}

TEST(Bench, RefusesWhatItCannotMeasureInOneLine) {
  const auto error_of = [](int ranks, const std::string& options) {
    const CommandResult result = run_meshmla(ranks, "bench " + options);
    EXPECT_EQ(result.exit_code, 2) << options;
    EXPECT_EQ(result.output, "") << options;
    return result.errors;
  };
  EXPECT_THAT(error_of(0, "--heads 16,,128"),
              ElementsAre("meshmla: error: --heads: '16,,128'; expected a comma-separated list"));
  EXPECT_THAT(error_of(1, "--seqlen 1k..8k"),
              ElementsAre("meshmla: error: --seqlen: '1k..8k'; expected sizes of 1 to 2^40 such as "
                          "16, 4k, 1k..128k*2 or 16..64+16"));
  EXPECT_THAT(error_of(0, "--backend abacus"), ElementsAre(HasSubstr("--backend: abacus;")));
  EXPECT_THAT(error_of(0, "--dtype fp32"),
              ElementsAre("meshmla: error: --dtype: 'fp32'; expected bf16 or fp16"));
  EXPECT_THAT(error_of(0, "--projected --nope 100"),
              ElementsAre("meshmla: error: --nope: 100; expected a multiple of 16"));
  EXPECT_THAT(error_of(0, "--nope 128"), ElementsAre(HasSubstr("--nope requires --projected")));
  EXPECT_THAT(
      error_of(0, "--backend portable --combine fast"),
      ElementsAre("meshmla: error: --combine: fast with backend portable; expected exact, or "
                  "a backend that computes on a GPU"));
  EXPECT_THAT(error_of(0, "--lengths 5,6 --batch 2"), ElementsAre(HasSubstr("excludes")));
  EXPECT_THAT(error_of(0, "--projected --peers"),
              ElementsAre(HasSubstr("--projected excludes --peers")));
  EXPECT_THAT(error_of(3, ""),
              ElementsAre("meshmla: error: ranks: 3; expected 1: without --model, bench measures "
                          "one process, on as many --threads as it has cores"));
}

}  // namespace
}  // namespace mla::launch
