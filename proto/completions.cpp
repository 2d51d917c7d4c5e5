#include "proto/completions.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <limits>
#include <utility>

#include "core/error.h"
#include "proto/json_reader.h"
#include "proto/text_lines.h"

namespace mla::proto {
namespace {

using nlohmann::json;

constexpr int kRequestDepth = 16;
constexpr std::int64_t kMaxTokens = std::int64_t{1} << 40;
constexpr std::int64_t kMaxTopLogprobs = 20;
constexpr std::size_t kMaxStops = 64;
constexpr std::size_t kMaxStopBytes = 4096;
constexpr std::size_t kMaxCustomIdBytes = 512;
constexpr std::int64_t kOpenAiMaxTokens = 16;
constexpr std::int64_t kMaxInt64 = std::numeric_limits<std::int64_t>::max();
constexpr std::int64_t kMaxInt32 = std::numeric_limits<std::int32_t>::max();

// Without influence on the result.
constexpr std::array<std::string_view, 6> kIgnored{"model", "user",         "metadata",
                                                   "store", "service_tier", "stream_options"};

/// A field that is supported at one value only, which changes nothing.
struct Neutral {
  std::string_view key;
  json value;
};

const std::vector<Neutral>& neutral_fields() {
  static const std::vector<Neutral> kFields{{"n", 1},
                                            {"best_of", 1},
                                            {"stream", false},
                                            {"echo", false},
                                            {"suffix", ""},
                                            {"presence_penalty", 0},
                                            {"frequency_penalty", 0},
                                            {"repetition_penalty", 1},
                                            {"logit_bias", json::object()},
                                            {"response_format", json::object({{"type", "text"}})},
                                            {"modalities", json::array({"text"})},
                                            {"tools", json::array()},
                                            {"tool_choice", "none"},
                                            {"skip_special_tokens", true},
                                            {"include_stop_str_in_output", false},
                                            {"add_generation_prompt", true}};
  return kFields;
}

constexpr std::array<std::string_view, 13> kCommonFields{
    "max_tokens",     "temperature", "top_p",      "top_k",    "min_p",  "seed",    "stop",
    "stop_token_ids", "ignore_eos",  "min_tokens", "logprobs", "prompt", "messages"};

void check_supported(const JsonField& body, Endpoint endpoint) {
  const bool chat = endpoint == Endpoint::kChat;
  for (const auto& [key, value] : body.value().items()) {
    if (value.is_null() || std::ranges::find(kIgnored, key) != kIgnored.end()) continue;
    const auto neutral = std::ranges::find(neutral_fields(), key, &Neutral::key);
    if (neutral != neutral_fields().end()) {
      if (value != neutral->value) body.at(key).unsupported(neutral->value.dump());
      continue;
    }
    const bool known = (std::ranges::find(kCommonFields, key) != kCommonFields.end() &&
                        key != (chat ? "prompt" : "messages")) ||
                       (chat && (key == "max_completion_tokens" || key == "top_logprobs"));
    if (!known) body.at(key).unsupported("a request without this field");
  }
}

std::vector<std::int32_t> read_ids(const JsonField& field) {
  std::vector<std::int32_t> ids;
  ids.reserve(field.size());
  for (const json& id : field.value()) {
    // A name for each of millions of elements would take longer than reading them.
    ids.push_back(static_cast<std::int32_t>(JsonField(id, field.name()).integer(0, kMaxInt32)));
  }
  return ids;
}

Prompt read_prompt(const JsonField& field) {
  if (!field.value().is_array()) return field.string();
  if (field.size() == 0 || field.value()[0].is_number()) return read_ids(field);
  if (field.size() > 1) field.unsupported("one prompt in each request");
  return read_prompt(field.at(0));
}

/// A string, or an array of {"type": "text", "text": ...}, which are joined by ends of lines.
std::string read_content(const JsonField& content) {
  if (!content.value().is_array()) return content.string();
  std::string text;
  for (std::size_t i = 0; i < content.size(); ++i) {
    const JsonField part = content.at(i);
    part.allow_only({"type", "text"});
    if (part.at("type").string() != "text") part.at("type").unsupported("text");
    text += (i == 0 ? "" : "\n") + part.at("text").string();
  }
  return text;
}

std::vector<ChatMessage> read_messages(const JsonField& field) {
  if (field.size() == 0) field.expected("at least one message");
  std::vector<ChatMessage> messages;
  for (std::size_t i = 0; i < field.size(); ++i) {
    const JsonField message = field.at(i);
    message.allow_only({"role", "content", "name"});
    messages.push_back({message.at("role").string(), read_content(message.at("content"))});
  }
  return messages;
}

std::vector<std::string> read_stops(const JsonField& field) {
  std::vector<std::string> stops;
  const auto add = [&](const JsonField& stop) {
    const std::size_t bytes = stop.string().size();
    if (bytes == 0 || bytes > kMaxStopBytes) {
      stop.expected("1 to " + std::to_string(kMaxStopBytes) + " bytes");
    }
    stops.push_back(stop.string());
  };
  if (!field.value().is_array()) {
    add(field);
    return stops;
  }
  if (field.size() > kMaxStops) field.expected("at most " + std::to_string(kMaxStops) + " strings");
  for (std::size_t i = 0; i < field.size(); ++i) add(field.at(i));
  return stops;
}

void read_sampling(const JsonField& body, SamplingParams& sampling) {
  const auto read = [&](const char* key, double& value) {
    if (!body.at(key).is_null()) value = body.at(key).number();
  };
  read("temperature", sampling.temperature);
  read("top_p", sampling.top_p);
  read("min_p", sampling.min_p);
  // -1 means all tokens to some servers.
  sampling.top_k =
      std::max<std::int64_t>(0, body.at("top_k").integer_or(sampling.top_k, -1, kMaxInt64));
  check_sampling(sampling);
}

void read_stop_rules(const JsonField& body, CompletionRequest& request) {
  StopRules& rules = request.stop;
  if (!body.at("stop").is_null()) rules.strings = read_stops(body.at("stop"));
  if (!body.at("stop_token_ids").is_null()) rules.ids = read_ids(body.at("stop_token_ids"));
  rules.ignore_eos = body.at("ignore_eos").boolean_or(rules.ignore_eos);
  const JsonField newer = body.at("max_completion_tokens");
  const JsonField max_tokens = newer.is_null() ? body.at("max_tokens") : newer;
  if (!max_tokens.is_null()) {
    rules.max_tokens = max_tokens.integer(1, kMaxTokens);
  } else if (request.endpoint == Endpoint::kCompletions && rules.max_tokens == kMaxInt64) {
    rules.max_tokens = kOpenAiMaxTokens;
  }
  rules.min_tokens = body.at("min_tokens").integer_or(rules.min_tokens, 0, rules.max_tokens);
}

/// /v1/completions: "logprobs" is a number; chat: true or false, and "top_logprobs" a number.
std::optional<std::int64_t> read_top_logprobs(const JsonField& body, Endpoint endpoint) {
  if (endpoint == Endpoint::kCompletions) {
    const JsonField logprobs = body.at("logprobs");
    if (logprobs.is_null()) return std::nullopt;
    return logprobs.integer(0, kMaxTopLogprobs);
  }
  const std::int64_t top = body.at("top_logprobs").integer_or(0, 0, kMaxTopLogprobs);
  if (body.at("logprobs").boolean_or(false)) return top;
  if (top > 0) body.at("top_logprobs").expected("\"logprobs\": true beside it");
  return std::nullopt;
}

Endpoint read_endpoint(const JsonField& line) {
  if (line.at("method").string_or("POST") != "POST") line.at("method").expected("POST");
  const std::string url = line.at("url").string();
  if (url == "/v1/completions") return Endpoint::kCompletions;
  if (url == "/v1/chat/completions") return Endpoint::kChat;
  line.at("url").unsupported("/v1/completions or /v1/chat/completions");
}

CompletionRequest read_request(const JsonField& line, const CompletionRequest& defaults) {
  line.allow_only({"custom_id", "method", "url", "body"});
  CompletionRequest request = defaults;
  request.custom_id = line.at("custom_id").string();
  request.endpoint = read_endpoint(line);
  if (!line.at("body").value().is_object()) line.at("body").expected("an object");
  const JsonField body(line.at("body").value(), "");
  check_supported(body, request.endpoint);
  request.prompt = request.endpoint == Endpoint::kChat ? read_messages(body.at("messages"))
                                                       : read_prompt(body.at("prompt"));
  read_sampling(body, request.sampling);
  read_stop_rules(body, request);
  const JsonField seed = body.at("seed");
  if (!seed.is_null()) {
    request.seed = static_cast<std::uint64_t>(
        seed.integer(std::numeric_limits<std::int64_t>::min(), kMaxInt64));
  }
  request.top_logprobs = read_top_logprobs(body, request.endpoint);
  return request;
}

}  // namespace

CompletionLine parse_completion(std::string_view text, const CompletionRequest& defaults) {
  CompletionLine result;
  try {
    if (text.size() > kMaxLineBytes) {
      throw FormatError("request", std::to_string(text.size()) + " bytes",
                        "at most " + std::to_string(kMaxLineBytes));
    }
    const json parsed = parse_json(text, "request", kRequestDepth);
    const JsonField line(parsed, "");
    if (!parsed.is_object()) JsonField(parsed, "request").expected("an object");
    const std::string custom_id = line.at("custom_id").string();
    if (custom_id.empty() || custom_id.size() > kMaxCustomIdBytes) {
      line.at("custom_id").expected("1 to " + std::to_string(kMaxCustomIdBytes) + " bytes");
    }
    result.custom_id = custom_id;
    result.request = read_request(line, defaults);
  } catch (const Error& error) {
    result.request = RequestError{error.what()};
  }
  return result;
}

CompletionFile::CompletionFile(const std::filesystem::path& path, CompletionRequest defaults)
    : file_(path), defaults_(std::move(defaults)), is_text_(path.extension() == ".txt") {
  const std::string name = "requests '" + path.string() + "'";
  TextLines lines(file_.text());
  while (const auto line = lines.next()) {
    if (lines_.size() == kMaxCompletions) {
      throw FormatError(name, "more requests", "at most " + std::to_string(kMaxCompletions));
    }
    lines_.push_back({*line, lines.number()});
  }
  if (lines_.empty()) throw FormatError(name, "no requests", "at least one line");
}

CompletionLine CompletionFile::read(std::int64_t index) const {
  const auto [line, number] = lines_.at(static_cast<std::size_t>(index));
  if (is_text_) {
    CompletionLine result{"line-" + std::to_string(number), defaults_};
    auto& request = std::get<CompletionRequest>(result.request);
    request.custom_id = result.custom_id;
    request.prompt = std::string(line);
    return result;
  }
  CompletionLine result = parse_completion(line, defaults_);
  if (auto* error = std::get_if<RequestError>(&result.request)) {
    error->message = "line " + std::to_string(number) + ": " + error->message;
  }
  return result;
}

}  // namespace mla::proto
