#include "proto/completions.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>
#ifdef MLA_HAVE_RAPIDCHECK
#include <rapidcheck.h>
#include <rapidcheck/gtest.h>
#endif

#include "tests/support/temp_dir.h"

namespace mla::proto {
namespace {

using nlohmann::json;
using testing::ElementsAre;
using testing::HasSubstr;

json line_of(const std::string& url, const json& body) {
  return {{"custom_id", "r"}, {"method", "POST"}, {"url", url}, {"body", body}};
}

CompletionRequest parsed(const json& line, const CompletionRequest& defaults = {}) {
  const CompletionLine result = parse_completion(line.dump(), defaults);
  const auto* error = std::get_if<RequestError>(&result.request);
  EXPECT_EQ(error, nullptr) << (error == nullptr ? "" : error->message);
  return error == nullptr ? std::get<CompletionRequest>(result.request) : CompletionRequest();
}

CompletionRequest parsed_completion(const json& body) {
  return parsed(line_of("/v1/completions", body));
}

CompletionRequest parsed_chat(json body) {
  body["messages"] = {{{"role", "user"}, {"content", "Hi"}}};
  return parsed(line_of("/v1/chat/completions", body));
}

std::string refusal(const std::string& line) {
  const CompletionLine result = parse_completion(line, {});
  const auto* error = std::get_if<RequestError>(&result.request);
  return error == nullptr ? "none" : error->message;
}

std::string refusal_of_body(json body) {
  if (!body.contains("prompt")) body["prompt"] = "x";
  return refusal(line_of("/v1/completions", body).dump());
}

TEST(Completions, ReadAllThatIsKnown) {
  const CompletionRequest request = parsed_completion(json::parse(R"({
      "model": "any", "prompt": "To be", "max_tokens": 5, "min_tokens": 2, "temperature": 0.5,
      "top_p": 0.9, "top_k": 7, "min_p": 0.01, "seed": -1, "stop": ["a", "b"],
      "stop_token_ids": [3, 4], "ignore_eos": true, "logprobs": 2, "n": 1, "echo": false,
      "presence_penalty": 0.0, "user": "u", "stream": null})"));
  EXPECT_EQ(request.custom_id, "r");
  EXPECT_EQ(request.endpoint, Endpoint::kCompletions);
  EXPECT_EQ(std::get<std::string>(request.prompt), "To be");
  EXPECT_EQ(request.sampling,
            (SamplingParams{.temperature = 0.5, .min_p = 0.01, .top_k = 7, .top_p = 0.9}));
  EXPECT_EQ(request.stop, (StopRules{.strings = {"a", "b"},
                                     .ids = {3, 4},
                                     .min_tokens = 2,
                                     .max_tokens = 5,
                                     .ignore_eos = true}));
  EXPECT_EQ(request.seed, ~std::uint64_t{0});
  EXPECT_EQ(request.top_logprobs, 2);
}

TEST(Completions, LeaveToTheDefaultsWhatALineDoesNotSay) {
  const json line = line_of("/v1/completions", {{"prompt", "x"}});
  EXPECT_EQ(parsed(line).stop.max_tokens, 16);
  EXPECT_EQ(parsed(line).sampling, SamplingParams());
  CompletionRequest defaults{.sampling = {.temperature = 0}, .seed = 5};
  defaults.stop.max_tokens = 100;
  EXPECT_EQ(parsed(line, defaults).stop.max_tokens, 100);
  EXPECT_EQ(parsed(line, defaults).sampling.temperature, 0);
  EXPECT_EQ(parsed(line, defaults).seed, 5u);
}

TEST(Completions, TakePromptsAsTokens) {
  const auto ids = [](const json& prompt) {
    return std::get<std::vector<std::int32_t>>(parsed_completion({{"prompt", prompt}}).prompt);
  };
  EXPECT_THAT(ids({5, 0, 7}), ElementsAre(5, 0, 7));
  EXPECT_THAT(ids(json::array({{5, 6}})), ElementsAre(5, 6));
  EXPECT_TRUE(ids(json::array()).empty());
  EXPECT_EQ(std::get<std::string>(parsed_completion({{"prompt", {"one"}}}).prompt), "one");
}

TEST(Completions, ReadConversations) {
  const CompletionRequest request = parsed(line_of("/v1/chat/completions", json::parse(R"({
      "messages": [{"role": "system", "content": "Be brief."},
                   {"role": "user", "content": [{"type": "text", "text": "a"},
                                                {"type": "text", "text": "b"}]}],
      "max_completion_tokens": 9, "logprobs": true, "top_logprobs": 3,
      "response_format": {"type": "text"}, "tools": [], "modalities": ["text"]})")));
  EXPECT_EQ(request.endpoint, Endpoint::kChat);
  EXPECT_THAT(std::get<std::vector<ChatMessage>>(request.prompt),
              ElementsAre(ChatMessage{"system", "Be brief."}, ChatMessage{"user", "a\nb"}));
  EXPECT_EQ(request.stop.max_tokens, 9);
  EXPECT_EQ(request.top_logprobs, 3);
  EXPECT_EQ(parsed_chat({{"logprobs", true}}).top_logprobs, 0);
  EXPECT_EQ(parsed_chat({{"logprobs", false}}).top_logprobs, std::nullopt);
  EXPECT_EQ(parsed_chat({}).stop.max_tokens, StopRules().max_tokens);
}

TEST(Completions, RefuseWhatWouldChangeTheResult) {
  const std::pair<const char*, const char*> cases[] = {
      {R"({"n": 2})", "n: 2; expected 1"},
      {R"({"frequency_penalty": 0.5})", "frequency_penalty: 0.5; expected 0"},
      {R"({"logit_bias": {"5": 1}})", "logit_bias: an object; expected {}"},
      {R"({"stream": true})", "stream: true"},
      {R"({"new_thing": 1})", "new_thing: 1; expected a request without this field"},
      {R"({"messages": []})", "messages: an array; expected a request without this field"},
      {R"({"max_completion_tokens": 5})", "max_completion_tokens: 5"},
      {R"({"prompt": ["a", "b"]})", "prompt: an array; expected one prompt in each request"},
  };
  for (const auto& [body, expected] : cases) {
    EXPECT_THAT(refusal_of_body(json::parse(body)), HasSubstr(expected));
  }
}

TEST(Completions, NameTheValueThatIsWrong) {
  const std::pair<const char*, const char*> cases[] = {
      {R"({"prompt": 5})", "prompt: 5; expected a string"},
      {R"({"prompt": null})", "prompt: missing"},
      {R"({"prompt": [1, "x"]})", "prompt: \"x\"; expected an integer"},
      {R"({"prompt": [-1]})", "prompt: -1; expected an integer from 0"},
      {R"({"prompt": [4294967296]})", "prompt: 4294967296"},
      {R"({"max_tokens": 0})", "max_tokens: 0; expected an integer from 1"},
      {R"({"max_tokens": 1e3})", "max_tokens: 1000.0; expected an integer"},
      {R"({"min_tokens": 20})", "min_tokens: 20; expected an integer from 0 to 16"},
      {R"({"temperature": -1})", "temperature: -1"},
      {R"({"temperature": "hot"})", "temperature: \"hot\"; expected a number"},
      {R"({"top_p": 1.01})", "top_p: 1.01"},
      {R"({"top_k": -2})", "top_k: -2"},
      {R"({"seed": 18446744073709551615})", "seed: 18446744073709551615; expected an integer"},
      {R"({"stop": ""})", "stop: \"\"; expected 1 to 4096 bytes"},
      {R"({"stop": [7]})", "stop[0]: 7; expected a string"},
      {R"({"logprobs": 21})", "logprobs: 21; expected an integer from 0 to 20"},
      {R"({"ignore_eos": 1})", "ignore_eos: 1; expected true or false"},
  };
  for (const auto& [body, expected] : cases) {
    EXPECT_THAT(refusal_of_body(json::parse(body)), HasSubstr(expected));
  }
}

TEST(Completions, NameWhatIsWrongAroundTheBody) {
  const std::pair<const char*, const char*> cases[] = {
      {"nonsense", "request: parse error"},
      {"[1]", "request: an array; expected an object"},
      {"{\"a\": \"\xff\"}", "request: parse error"},
      {"{}", "custom_id: missing"},
      {R"({"custom_id": ""})", "custom_id: \"\"; expected 1 to 512 bytes"},
      {R"({"custom_id": "r", "url": "/v1/embeddings"})",
       "url: \"/v1/embeddings\"; expected /v1/co"},
      {R"({"custom_id": "r", "method": "GET"})", "method: \"GET\"; expected POST"},
      {R"({"custom_id": "r", "url": "/v1/completions"})", "body: missing"},
      {R"({"custom_id": "r", "priority": 1})", "priority: 1"},
  };
  for (const auto& [line, expected] : cases) EXPECT_THAT(refusal(line), HasSubstr(expected));
  EXPECT_THAT(refusal(std::string(100, '[')), HasSubstr("nested too deep"));
  EXPECT_THAT(refusal(std::string(kMaxLineBytes + 1, ' ')), HasSubstr("bytes; expected at most"));
}

TEST(Completions, KeepTheIdOfALineThatIsWrong) {
  EXPECT_EQ(parse_completion(R"({"custom_id": "r7", "url": 1})", {}).custom_id, "r7");
  EXPECT_EQ(parse_completion("?", {}).custom_id, "");
}

TEST(CompletionFile, ReadsAnyLineAlone) {
  const TempDir folder;
  const std::string good = line_of("/v1/completions", {{"prompt", "x"}}).dump();
  write_file(folder / "b.jsonl", "\n" + good + "\r\n\n\r\nnonsense\n" + good);
  const CompletionFile file(folder / "b.jsonl", {});
  ASSERT_EQ(file.size(), 3);
  EXPECT_TRUE(std::holds_alternative<CompletionRequest>(file.read(2).request));
  EXPECT_TRUE(std::holds_alternative<CompletionRequest>(file.read(0).request));
  EXPECT_THAT(std::get<RequestError>(file.read(1).request).message, HasSubstr("line 5: request: "));
}

TEST(CompletionFile, ReadsPlainPrompts) {
  const TempDir folder;
  write_file(folder / "p.txt", std::string("To be\n\nor not\r\n"));
  CompletionRequest defaults;
  defaults.stop.max_tokens = 3;
  const CompletionFile file(folder / "p.txt", defaults);
  ASSERT_EQ(file.size(), 2);
  const CompletionLine line = file.read(1);
  EXPECT_EQ(line.custom_id, "line-3");
  const auto& request = std::get<CompletionRequest>(line.request);
  EXPECT_EQ(std::get<std::string>(request.prompt), "or not");
  EXPECT_EQ(request.stop.max_tokens, 3);
}

TEST(CompletionFile, RefusesAFileOfNothing) {
  const TempDir folder;
  for (const std::string text : {"", "\n\n"}) {
    write_file(folder / "e.jsonl", text);
    EXPECT_THAT(error_of([&] { CompletionFile(folder / "e.jsonl", {}); }),
                HasSubstr("no requests"));
  }
  EXPECT_THAT(error_of([&] { CompletionFile(folder / "none.jsonl", {}); }),
              HasSubstr("none.jsonl"));
}

const CompletionJob kJob{.model = "demo", .created = 1700000000};

TEST(CompletionLine, AnswersAsOpenAiDoes) {
  const Completion completion{.text = "I\n\"é\"",
                              .token_ids = {4, 5, 6},
                              .finish_reason = FinishReason::kStop,
                              .prompt_tokens = 2,
                              .logprobs = {}};
  EXPECT_EQ(completion_line(kJob, 7, "r", Endpoint::kCompletions, completion),
            R"({"id":"batch_req_7","custom_id":"r","response":{"status_code":200,)"
            R"("request_id":"req_7","body":{"id":"cmpl-7","object":"text_completion",)"
            R"("created":1700000000,"model":"demo","choices":[{"index":0,"text":"I\n\"é\"",)"
            R"("logprobs":null,"finish_reason":"stop","token_ids":[4,5,6]}],)"
            R"("usage":{"prompt_tokens":2,"completion_tokens":3,"total_tokens":5}}},"error":null})"
            "\n");
  const json chat = json::parse(completion_line(kJob, 7, "r", Endpoint::kChat, completion));
  const json& choice = chat["response"]["body"]["choices"][0];
  EXPECT_EQ(chat["response"]["body"]["object"], "chat.completion");
  EXPECT_EQ(choice["message"], json({{"role", "assistant"}, {"content", "I\n\"é\""}}));
  EXPECT_FALSE(choice.contains("text"));
}

TEST(CompletionLine, ReportsLogprobs) {
  const Completion completion{
      .text = "ab",
      .token_ids = {1, 2},
      .finish_reason = FinishReason::kLength,
      .prompt_tokens = 1,
      .logprobs = {{{"a", -0.1F, {{"a", -0.1F}, {"\xff", -2.5F}}}, {"b", -1.0F, {}}}}};
  const json text = json::parse(completion_line(kJob, 0, "r", Endpoint::kCompletions, completion));
  EXPECT_EQ(text["response"]["body"]["choices"][0]["logprobs"], json::parse(R"({
      "tokens": ["a", "b"], "token_logprobs": [-0.100000001, -1],
      "top_logprobs": [{"a": -0.100000001, "\ufffd": -2.5}, {}], "text_offset": [0, 1]})"));
  const json chat = json::parse(completion_line(kJob, 0, "r", Endpoint::kChat, completion));
  EXPECT_EQ(chat["response"]["body"]["choices"][0]["finish_reason"], "length");
  EXPECT_EQ(chat["response"]["body"]["choices"][0]["logprobs"]["content"][0], json::parse(R"({
      "token": "a", "logprob": -0.100000001, "bytes": [97], "top_logprobs": [
        {"token": "a", "logprob": -0.100000001, "bytes": [97]},
        {"token": "\ufffd", "logprob": -2.5, "bytes": [255]}]})"));
}

TEST(CompletionLine, TellsWhyARequestFailed) {
  EXPECT_EQ(error_line(3, "", {"line 4: no good"}),
            R"({"id":"batch_req_3","custom_id":null,"response":{"status_code":400,)"
            R"("request_id":"req_3","body":{"error":{"message":"line 4: no good",)"
            R"("type":"invalid_request_error","param":null,"code":null}}},"error":null})"
            "\n");
  EXPECT_THAT(error_line(3, "r", {"lost", 500}), HasSubstr("server_error"));
}

#ifdef MLA_HAVE_RAPIDCHECK
RC_GTEST_PROP(Completions, AnyLineIsARequestOrAnError, ()) {
  std::string line = line_of("/v1/completions", {{"prompt", {1, 2}}, {"stop", {"a"}}}).dump();
  const auto changes = *rc::gen::container<std::vector<std::pair<std::size_t, char>>>(
      rc::gen::pair(rc::gen::inRange<std::size_t>(0, line.size()), rc::gen::arbitrary<char>()));
  for (const auto& [place, byte] : changes) line[place] = byte;
  const CompletionLine result = parse_completion(line, {});
  if (const auto* error = std::get_if<RequestError>(&result.request)) {
    RC_ASSERT(!error->message.empty());
    // What is written about it is JSON in any case.
    RC_ASSERT(json::parse(error_line(0, result.custom_id, *error))["error"].is_null());
  }
}
#endif

}  // namespace
}  // namespace mla::proto
