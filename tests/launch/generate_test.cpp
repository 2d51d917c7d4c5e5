// What a person sees of `meshmla generate`, with the demo model.

#include <cstdio>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "tests/launch/run_command.h"

namespace mla::launch {
namespace {

using nlohmann::json;
using testing::HasSubstr;

const std::string kModel = MLA_SOURCE_DIR "/launch/demo/model";

std::vector<json> lines_of(const std::string& text) {
  std::vector<json> lines;
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = text.find('\n', begin);
    lines.push_back(json::parse(text.substr(begin, end - begin)));
    begin = end + 1;
  }
  return lines;
}

json request(const std::string& id, json body) {
  return {
      {"custom_id", id}, {"method", "POST"}, {"url", "/v1/completions"}, {"body", std::move(body)}};
}

class Generate : public testing::Test {
 protected:
  void write_requests(const std::vector<json>& requests) {
    std::string text;
    for (const json& line : requests) text += line.dump() + "\n";
    write_file(folder_ / "requests.jsonl", text);
  }

  /// Answers of a run, by line.
  std::string answers(int ranks, const std::string& options) {
    const CommandResult result =
        run_meshmla(ranks, "generate " + kModel + " " + folder_ / "requests.jsonl" + " --output " +
                               folder_ / "answers" + " --quiet " + options);
    EXPECT_EQ(result.exit_code, expected_code_) << testing::PrintToString(result.errors);
    return read_file(folder_ / "answers");
  }

  TemporaryFolder folder_;
  int expected_code_ = 0;
};

TEST_F(Generate, GivesTheTokensOfTransformers) {
  const json golden = json::parse(read_file(kModel + "/golden.json"));
  std::vector<json> requests;
  for (const json& c : golden["greedy"]) {
    requests.push_back(
        request("golden", {{"prompt", c["prompt"]}, {"max_tokens", c["output_ids"].size()}}));
  }
  write_requests(requests);
  const std::vector<json> lines = lines_of(answers(2, ""));
  ASSERT_EQ(lines.size(), golden["greedy"].size());
  for (std::size_t i = 0; i < lines.size(); ++i) {
    const json& c = golden["greedy"][i];
    ASSERT_GT(c["min_top2_margin"].get<double>(), 1e-3);
    const json& choice = lines[i]["response"]["body"]["choices"][0];
    EXPECT_EQ(choice["token_ids"], c["output_ids"]) << c["prompt"];
    EXPECT_EQ(choice["text"], c["text"]);
  }
}

TEST_F(Generate, GivesTheSameBytesForAnyRanksShardingAndBatch) {
  std::vector<json> requests;
  for (int i = 0; i < 6; ++i) {
    json body{{"prompt",
               "First Citizen:\nBefore we proceed any further, hear me speak.\n\nAll:\nSpeak, "
               "speak.\n\nFirst Citizen:\nYou are all resolved rather to die than to famish?\n\n"
               "All: number " +
                   std::to_string(i) + "\n"},
              {"max_tokens", 20 + i},
              {"logprobs", 2}};
    if (i % 2 == 1) body["temperature"] = 0.8;
    if (i == 3) body["seed"] = 7;
    requests.push_back(request(std::string("r") += std::to_string(i), std::move(body)));
  }
  write_requests(requests);
  const std::string alone = answers(0, "--max-running 1 --threads 1 --no-prefix-sharing");
  EXPECT_EQ(lines_of(alone).size(), 6U);
  EXPECT_EQ(answers(1, "--threads 2"), alone);
  EXPECT_EQ(answers(2, "--max-step-tokens 9 --max-running 6"), alone);
  EXPECT_EQ(answers(3, "--sharding requests --max-running 6"), alone);
  EXPECT_EQ(answers(4, "--sharding groups:2"), alone);
  EXPECT_EQ(answers(2, "--sharding kv --max-context 1100"), alone);
  EXPECT_EQ(answers(5, "--cache-tokens 192 --max-context 190"), alone) << "with preemption";
}

/// Long enough for the MHA form, with beginnings in common that take the same form and not.
TEST_F(Generate, GivesTheSameBytesForLongPromptsToo) {
  std::vector<json> requests;
  for (const int length : {1100, 1050, 600}) {
    std::vector<int> prompt;
    for (int i = 0; i < length; ++i) prompt.push_back(i < 990 ? 10 + i % 71 : length % 97 + i % 13);
    requests.push_back(
        request("of " + std::to_string(length),
                {{"prompt", prompt}, {"max_tokens", 6}, {"logprobs", 2}, {"ignore_eos", true}}));
  }
  write_requests(requests);
  const std::string alone = answers(0, "--max-running 1 --threads 1 --no-prefix-sharing");
  EXPECT_EQ(lines_of(alone).size(), 3U);
  EXPECT_EQ(answers(2, "--max-step-tokens 99"), alone);
  EXPECT_EQ(answers(3, "--sharding requests --max-step-tokens 2000"), alone);
  EXPECT_EQ(answers(2, "--sharding kv"), alone);
  EXPECT_EQ(answers(1, "--threads 2 --cache-tokens 1280 --max-context 1200"), alone)
      << "with preemption";
}

TEST_F(Generate, AnswersTheOthersWhenARequestCannotRun) {
  write_requests({request("good", {{"prompt", "ROMEO:"}, {"max_tokens", 3}}),
                  request("empty", {{"prompt", json::array()}}),
                  request("unknown id", {{"prompt", {5, 99999}}}),
                  request("long", {{"prompt", std::string(20000, 'x')}}),
                  {{"custom_id", "no body"}},
                  request("good too", {{"prompt", {1, 2, 3}}, {"max_tokens", 3}})});
  expected_code_ = 4;
  const std::vector<json> lines = lines_of(answers(2, ""));
  ASSERT_EQ(lines.size(), 6U);
  for (const std::size_t good : {0, 5}) EXPECT_EQ(lines[good]["response"]["status_code"], 200);
  const char* why[] = {"", "at least one", "token 99999", "fewer than the context of 2048", "body"};
  for (const std::size_t bad : {1, 2, 3, 4}) EXPECT_THAT(lines[bad].dump(), HasSubstr(why[bad]));
}

TEST_F(Generate, StreamsTheAnswerToOnePrompt) {
  const CommandResult result = run_meshmla(
      2, "generate " + kModel + " --prompt \"$(printf 'ROMEO:\\n')\" --quiet --max-tokens 8");
  EXPECT_EQ(result.exit_code, 0);
  EXPECT_NE(result.output, "");
}

TEST_F(Generate, RefusesWhatIsNoModelInOneLine) {
  const CommandResult result =
      run_meshmla(2, "generate " + folder_ / "nothing" + " --prompt x --quiet");
  EXPECT_EQ(result.exit_code, 3);
  ASSERT_EQ(result.errors.size(), 1U);
  EXPECT_THAT(result.errors[0], HasSubstr("config.json"));
}

TEST_F(Generate, AgreesWithTransformersAboutThePerplexityOfAText) {
  const json golden = json::parse(read_file(kModel + "/perplexity.json"));
  write_file(folder_ / "text", golden["text"].get<std::string>());
  for (const int ranks : {1, 3}) {
    const CommandResult result =
        run_meshmla(ranks, "perplexity " + kModel + " " + folder_ / "text");
    EXPECT_EQ(result.exit_code, 0) << testing::PrintToString(result.errors);
    double perplexity = 0;
    int tokens = 0;
    ASSERT_EQ(std::sscanf(result.output.c_str(), "perplexity %lf over %d", &perplexity, &tokens),
              2);
    EXPECT_EQ(tokens, golden["predicted_tokens"].get<int>());
    EXPECT_NEAR(perplexity, golden["perplexity"].get<double>(), 5e-4);
  }
}

TEST_F(Generate, LosesLittleByAFastCombine) {
  const json golden = json::parse(read_file(kModel + "/perplexity.json"));
  std::string text;
  for (int i = 0; i < 3; ++i) text += golden["text"].get<std::string>();
  write_file(folder_ / "text", text);  // of two chunks
  std::vector<double> perplexities;
  for (const char* combine : {"exact", "fast"}) {
    const CommandResult result =
        run_meshmla(3, "perplexity " + kModel + " " + folder_ / "text" +
                           " --sharding kv --max-context 1536 --combine " + combine);
    EXPECT_EQ(result.exit_code, 0) << testing::PrintToString(result.errors);
    ASSERT_EQ(std::sscanf(result.output.c_str(), "perplexity %lf", &perplexities.emplace_back()),
              1);
  }
  EXPECT_NE(perplexities[1], perplexities[0]);
  EXPECT_NEAR(perplexities[1], perplexities[0], 1e-3 * perplexities[0]);
}

TEST_F(Generate, MakesWeightsUpForExperiments) {
  write_requests({request("a", {{"prompt", {1, 2, 3}}, {"max_tokens", 4}})});
  const CommandResult result =
      run_meshmla(2,
                  "generate deepseek-v2-lite --load-format dummy --layers 1 --max-context 128 "
                  "--max-running 1 " +
                      folder_ / "requests.jsonl" + " --output " + folder_ / "answers");
  EXPECT_EQ(result.exit_code, 0) << testing::PrintToString(result.errors);
  EXPECT_EQ(lines_of(read_file(folder_ / "answers")).size(), 1U);
}

}  // namespace
}  // namespace mla::launch
