#include <cstdio>
#include <string>

#include <nlohmann/json.hpp>

#include "core/utf8.h"
#include "proto/completions.h"

namespace mla::proto {
namespace {

// Members stay in OpenAI's order.
using Json = nlohmann::ordered_json;

std::string_view reason_name(FinishReason reason) {
  return reason == FinishReason::kStop ? "stop" : "length";
}

std::string text_of(const std::string& bytes) {
  Utf8Stream stream;
  const std::string text = stream.push(bytes);
  return text + stream.finish();
}

Json byte_list(const std::string& bytes) {
  Json list = Json::array();
  for (const char byte : bytes) list.push_back(static_cast<unsigned char>(byte));
  return list;
}

/// A float's shortest digits, not those of the double that it becomes.
Json number(float value) {
  char digits[32];
  std::snprintf(digits, sizeof digits, "%.9g", static_cast<double>(value));
  return Json::parse(digits, nullptr, false);
}

/// {"tokens", "token_logprobs", "top_logprobs", "text_offset"}, an array each.
Json completion_logprobs(const std::vector<ReportedToken>& tokens) {
  Json result{{"tokens", Json::array()},
              {"token_logprobs", Json::array()},
              {"top_logprobs", Json::array()},
              {"text_offset", Json::array()}};
  std::size_t offset = 0;
  for (const ReportedToken& token : tokens) {
    result["tokens"].push_back(text_of(token.bytes));
    result["token_logprobs"].push_back(number(token.logprob));
    Json top = Json::object();
    for (const auto& other : token.top) top.emplace(text_of(other.bytes), number(other.logprob));
    result["top_logprobs"].push_back(std::move(top));
    result["text_offset"].push_back(offset);
    offset += token.bytes.size();
  }
  return result;
}

Json chat_logprobs(const std::vector<ReportedToken>& tokens) {
  const auto entry = [](const std::string& bytes, float logprob) {
    return Json{
        {"token", text_of(bytes)}, {"logprob", number(logprob)}, {"bytes", byte_list(bytes)}};
  };
  Json content = Json::array();
  for (const ReportedToken& token : tokens) {
    Json item = entry(token.bytes, token.logprob);
    item["top_logprobs"] = Json::array();
    for (const auto& other : token.top) {
      item["top_logprobs"].push_back(entry(other.bytes, other.logprob));
    }
    content.push_back(std::move(item));
  }
  return {{"content", std::move(content)}};
}

Json make_choice(Endpoint endpoint, const Completion& completion) {
  Json choice{{"index", 0}};
  Json logprobs;
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

std::string line_of(std::int64_t index, std::string_view custom_id, int status, Json body) {
  const std::string number = std::to_string(index);
  Json line{{"id", "batch_req_" + number}};
  line["custom_id"] = custom_id.empty() ? Json() : Json(custom_id);
  line["response"] = {
      {"status_code", status}, {"request_id", "req_" + number}, {"body", std::move(body)}};
  line["error"] = nullptr;
  return line.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace

std::string completion_line(const CompletionJob& job, std::int64_t index,
                            std::string_view custom_id, Endpoint endpoint,
                            const Completion& completion) {
  const bool chat = endpoint == Endpoint::kChat;
  const auto tokens = static_cast<std::int64_t>(completion.token_ids.size());
  Json body{{"id", (chat ? "chatcmpl-" : "cmpl-") + std::to_string(index)},
            {"object", chat ? "chat.completion" : "text_completion"},
            {"created", job.created},
            {"model", job.model}};
  body["choices"] = Json::array({make_choice(endpoint, completion)});
  body["usage"] = {{"prompt_tokens", completion.prompt_tokens},
                   {"completion_tokens", tokens},
                   {"total_tokens", completion.prompt_tokens + tokens}};
  return line_of(index, custom_id, 200, std::move(body));
}

std::string error_line(std::int64_t index, std::string_view custom_id, const RequestError& error) {
  Json body;
  body["error"] = {{"message", error.message},
                   {"type", error.status < 500 ? "invalid_request_error" : "server_error"},
                   {"param", nullptr},
                   {"code", nullptr}};
  return line_of(index, custom_id, error.status, std::move(body));
}

}  // namespace mla::proto
