// What a person sees of `meshmla generate`, with the demo model.

#include <cstdio>
#include <string>
#include <utility>
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
    return read_text(folder_ / "answers");
  }

  TemporaryFolder folder_;
  int expected_code_ = 0;
};

TEST_F(Generate, GivesTheTokensOfTransformers) {
  const json golden = json::parse(read_text(kModel + "/golden.json"));
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

/// Lines of a file of requests that cannot run, and what the answer must say of each.
std::vector<std::pair<std::string, std::string>> bad_requests() {
#ifdef __SANITIZE_ADDRESS__
  constexpr int kWords = 100'000;
#else
  constexpr int kWords = 2'000'000;  // 10 MB
#endif
  std::string words;
  for (int i = 0; i < kWords; ++i) words += "word ";
  const auto body = [](json members) { return request("bad", std::move(members)).dump(); };
  const auto tokens = [&](json ids) { return body({{"prompt", std::move(ids)}}); };
  const std::string cut = tokens({1, 2, 3}).substr(0, 60);
  return {
      {tokens(json::array()), "prompt: no tokens; expected at least one"},
      {tokens({5, 99999}), "prompt: token 99999; expected 0 to 1023"},
      {tokens({5, -1}), "prompt: -1; expected an integer from 0 to"},
      {tokens({5, 1.5}), "prompt: 1.5; expected an integer from 0 to"},
      {tokens(json(std::vector<int>(2048, 5))), "2048 tokens; expected fewer than the context"},
      {body({{"prompt", words}}), "tokens; expected fewer than the context of 2048"},
      {R"({"custom_id":"a","body":{"prompt":"a)"
       "\xff"
       R"("}})",
       "ill-formed UTF-8 byte"},
      {body(json::object()), "prompt: missing; expected a string"},
      {body({{"prompt", "x"}, {"max_tokens", 0}}), "max_tokens: 0; expected an integer from 1 to"},
      {R"({"custom_id":"no body"})", "url: missing; expected a string"},
      {"[1]", "request: an array; expected an object"},
      {cut, "expected JSON in UTF-8"},
      {std::string(100'000, '['), "nested too deep; expected at most 16 levels"},
  };
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
  const auto bad = bad_requests();
  std::string text = request("good", {{"prompt", "ROMEO:"}, {"max_tokens", 3}}).dump() + "\n";
  for (const auto& [line, why] : bad) text += line + "\n";
  text += request("good", {{"prompt", ""}, {"max_tokens", 3}}).dump() + "\n";  // a token begins it
  write_file(folder_ / "requests.jsonl", text);
  expected_code_ = 4;
  const std::vector<json> lines = lines_of(answers(2, ""));
  ASSERT_EQ(lines.size(), bad.size() + 2);
  EXPECT_EQ(lines.front()["response"]["status_code"], 200);
  EXPECT_EQ(lines.back()["response"]["status_code"], 200);
  for (std::size_t i = 0; i < bad.size(); ++i) {
    const json& response = lines[i + 1]["response"];
    EXPECT_EQ(response["status_code"], 400);
    EXPECT_THAT(response["body"]["error"]["message"].get<std::string>(), HasSubstr(bad[i].second));
  }
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
  const json golden = json::parse(read_text(kModel + "/perplexity.json"));
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
  const json golden = json::parse(read_text(kModel + "/perplexity.json"));
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
  EXPECT_EQ(lines_of(read_text(folder_ / "answers")).size(), 1U);
}

}  // namespace
}  // namespace mla::launch
