#include <cstdio>
#include <string>

#include <nlohmann/json.hpp>

#include "core/utf8.h"
#include "proto/completions.h"

namespace mla::proto {
namespace {

// Members stay in OpenAI's order.
using json = nlohmann::ordered_json;

std::string_view reason_name(FinishReason reason) {
  return reason == FinishReason::kStop ? "stop" : "length";
}

std::string text_of(const std::string& bytes) {
  Utf8Stream stream;
  const std::string text = stream.push(bytes);
  return text + stream.finish();
}

json byte_list(const std::string& bytes) {
  json list = json::array();
  for (const char byte : bytes) list.push_back(static_cast<unsigned char>(byte));
  return list;
}

/// A float's shortest digits, not those of the double that it becomes.
json number(float value) {
  char digits[32];
  std::snprintf(digits, sizeof digits, "%.9g", static_cast<double>(value));
  return json::parse(digits, nullptr, false);
}

/// {"tokens", "token_logprobs", "top_logprobs", "text_offset"}, an array each.
json completion_logprobs(const std::vector<ReportedToken>& tokens) {
  json result{{"tokens", json::array()},
              {"token_logprobs", json::array()},
              {"top_logprobs", json::array()},
              {"text_offset", json::array()}};
  std::size_t offset = 0;
  for (const ReportedToken& token : tokens) {
    result["tokens"].push_back(text_of(token.bytes));
    result["token_logprobs"].push_back(number(token.logprob));
    json top = json::object();
    for (const auto& other : token.top) top.emplace(text_of(other.bytes), number(other.logprob));
    result["top_logprobs"].push_back(std::move(top));
    result["text_offset"].push_back(offset);
    offset += token.bytes.size();
  }
  return result;
}

json chat_logprobs(const std::vector<ReportedToken>& tokens) {
  const auto entry = [](const std::string& bytes, float logprob) {
    return json{
        {"token", text_of(bytes)}, {"logprob", number(logprob)}, {"bytes", byte_list(bytes)}};
  };
  json content = json::array();
  for (const ReportedToken& token : tokens) {
    json item = entry(token.bytes, token.logprob);
    item["top_logprobs"] = json::array();
    for (const auto& other : token.top) {
      item["top_logprobs"].push_back(entry(other.bytes, other.logprob));
    }
    content.push_back(std::move(item));
  }
  return {{"content", std::move(content)}};
}

json make_choice(Endpoint endpoint, const Completion& completion) {
  json choice{{"index", 0}};
  json logprobs;
  if (endpoint == Endpoint::kChat) {
    choice["message"] = {{"role", "assistant"}, {"content", completion.text}};
    if (completion.logprobs) logprobs = chat_logprobs(*completion.logprobs);
  } else {
    choice["text"] = completion.text;
    if (completion.logprobs) logprobs = completion_logprobs(*completion.logprobs);
  }
  choice["logprobs"] = std::move(logprobs);
  choice["finish_reason"] = reason_name(completion.finish_reason);
  choice["token_ids"] = completion.token_ids;
  return choice;
}

std::string line_of(std::int64_t index, std::string_view custom_id, int status, json body) {
  const std::string number = std::to_string(index);
  json line{{"id", "batch_req_" + number}};
  line["custom_id"] = custom_id.empty() ? json() : json(custom_id);
  line["response"] = {
      {"status_code", status}, {"request_id", "req_" + number}, {"body", std::move(body)}};
  line["error"] = nullptr;
  return line.dump(-1, ' ', false, json::error_handler_t::replace) + "\n";
}

}  // namespace

std::string completion_line(const CompletionJob& job, std::int64_t index,
                            std::string_view custom_id, Endpoint endpoint,
                            const Completion& completion) {
  const bool chat = endpoint == Endpoint::kChat;
  const auto tokens = static_cast<std::int64_t>(completion.token_ids.size());
  json body{{"id", (chat ? "chatcmpl-" : "cmpl-") + std::to_string(index)},
            {"object", chat ? "chat.completion" : "text_completion"},
            {"created", job.created},
            {"model", job.model}};
  body["choices"] = json::array({make_choice(endpoint, completion)});
  body["usage"] = {{"prompt_tokens", completion.prompt_tokens},
                   {"completion_tokens", tokens},
                   {"total_tokens", completion.prompt_tokens + tokens}};
  return line_of(index, custom_id, 200, std::move(body));
}

std::string error_line(std::int64_t index, std::string_view custom_id, const RequestError& error) {
  json body;
  body["error"] = {{"message", error.message},
                   {"type", error.status < 500 ? "invalid_request_error" : "server_error"},
                   {"param", nullptr},
                   {"code", nullptr}};
  return line_of(index, custom_id, error.status, std::move(body));
}

}  // namespace mla::proto
