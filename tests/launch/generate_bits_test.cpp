// `meshmla generate` gives the same bytes, tokens and logprobs of the 20 likeliest, however the
// ranks share the work and whatever else runs.

#include <cstdlib>
#include <iostream>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "tests/launch/run_command.h"

namespace mla::launch {
namespace {

using nlohmann::json;

struct GenerateRun {
  int ranks = 0;  // 0: without mpirun
  std::string options;
};

/// Requests of one to ten pages of the cache, most with a beginning in common, half of them
/// sampled.
std::string requests_text() {
  const std::string scene =
      "First Citizen:\nBefore we proceed any further, hear me speak.\n\nAll:\nSpeak, speak.\n\n"
      "First Citizen:\nYou are all resolved rather to die than to famish?\n\nAll:\nResolved. "
      "resolved.\n\nFirst Citizen:\nFirst, you know Caius Marcius is chief enemy to the people.\n";
  std::string text;
  for (int i = 0; i < 32; ++i) {
    std::string prompt = (i % 4 == 0 ? "" : scene) + "number " + std::to_string(i) + "\n";
    for (int words = 0; words < (i == 9 ? 130 : i % 8); ++words) prompt += "and so on, ";
    json body{{"prompt", prompt}, {"max_tokens", i % 4 == 0 ? 60 : 3 + i % 5}, {"logprobs", 20}};
    if (i % 2 == 1) body["temperature"] = 0.8;
    if (i == 3) body["seed"] = 7;
    text += json{{"custom_id", std::to_string(i)},
                 {"method", "POST"},
                 {"url", "/v1/completions"},
                 {"body", std::move(body)}}
                .dump() +
            "\n";
  }
  return text;
}

/// Enough for the longest request, so that those beside it have to make room.
const std::string kPreempted = "--max-running 32 --cache-tokens 640";

std::vector<GenerateRun> some_runs() {
  return {{1, "--threads 2 --max-running 32"},
          {2, "--sharding kv --max-context 1100 --max-step-tokens 33"},
          {3, "--sharding requests --no-prefix-sharing"},
          {5, kPreempted},
          {8, "--sharding groups:2 --max-running 32"}};
}

std::vector<std::string> shardings(int ranks) {
  std::vector<std::string> names{"heads", "requests", "kv --max-context 1100"};
  for (const int groups : {2, 4}) {
    if (ranks % groups == 0 && ranks > groups) names.push_back("groups:" + std::to_string(groups));
  }
  return names;
}

std::vector<GenerateRun> all_runs() {
  std::vector<GenerateRun> runs;
  for (const int ranks : {1, 2, 3, 4, 5, 8}) {
    for (const std::string& sharding : shardings(ranks)) {
      for (const int threads : {1, 3}) {
        const std::string how =
            "--sharding " + sharding + " --threads " + std::to_string(threads) + " ";
        for (const std::string& company :
             {std::string("--max-running 1"), std::string("--max-running 32"),
              std::string("--max-running 32 --no-prefix-sharing"), kPreempted}) {
          runs.push_back({ranks, how + company});
        }
      }
    }
  }
  return runs;
}

std::string answers(const TemporaryFolder& folder, const GenerateRun& run) {
  const CommandResult result = run_meshmla(
      run.ranks, "generate " MLA_SOURCE_DIR "/launch/demo/model " + folder / "requests.jsonl" +
                     " --output " + folder / "answers" + " --quiet " + run.options);
  EXPECT_EQ(result.exit_code, 0) << testing::PrintToString(result.errors);
  return read_text(folder / "answers");
}

TEST(GenerateBits, AreTheSameForAnyRanksShardingThreadsAndCompany) {
  const TemporaryFolder folder;
  write_file(folder / "requests.jsonl", requests_text());
  const std::string alone = answers(folder, {0, "--max-running 1 --threads 1 --no-prefix-sharing"});
  ASSERT_NE(alone, "");
  const bool full = std::getenv("MLA_FULL_GRID") != nullptr;
  const std::vector<GenerateRun> runs = full ? all_runs() : some_runs();
  for (const GenerateRun& run : runs) {
    EXPECT_TRUE(answers(folder, run) == alone) << run.ranks << " ranks, " << run.options;
  }
  std::cout << runs.size() << " runs of 32 requests\n";
}

}  // namespace
}  // namespace mla::launch
