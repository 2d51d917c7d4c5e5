#include "proto/chat_template.h"

#include <algorithm>
#include <utility>

#include "core/error.h"
#include "proto/file_io.h"
#include "proto/json_reader.h"

namespace mla::proto {
namespace {

using nlohmann::json;

constexpr std::size_t kMaxTemplateBytes = 1 << 26;
constexpr int kTemplateDepth = 8;
constexpr std::string_view kUser = "<｜User｜>";
constexpr std::string_view kAssistant = "<｜Assistant｜>";
constexpr std::string_view kEndOfThought = "</think>";
constexpr std::string_view kEndOfSentence = "<｜end▁of▁sentence｜>";
constexpr const char* kForms = "a template of DeepSeek-V2, V2.5, V3 or R1, or prompts as text";

bool contains(std::string_view text, std::string_view part) {
  return text.find(part) != std::string_view::npos;
}

bool writes_v2(std::string_view jinja) {
  return contains(jinja, "'User: ' + message['content']") &&
         contains(jinja, "'Assistant: ' + message['content'] + eos_token");
}

bool marks_with_user(std::string_view jinja) {
  return contains(jinja, "'<｜User｜>' + message['content'] + '<｜Assistant｜>'");
}

bool writes_v3(std::string_view jinja) {
  // V3.1 and later have thoughts that are switched on by an argument.
  return contains(jinja, "'<｜User｜>' + message['content']") &&
         (contains(jinja, "'<｜Assistant｜>' + ") || marks_with_user(jinja)) &&
         contains(jinja, "ns.system_prompt") && !contains(jinja, "thinking");
}

void check_roles(std::span<const ChatMessage> messages) {
  for (const ChatMessage& message : messages) {
    const std::string& role = message.role;
    if (role != "system" && role != "user" && role != "assistant") {
      throw Unsupported("messages: role", role, "system, user or assistant");
    }
  }
}

std::string_view after_last(std::string_view text, std::string_view mark) {
  const std::size_t found = text.rfind(mark);
  return found == std::string_view::npos ? text : text.substr(found + mark.size());
}

/// A member that is a string, or an object with "content"; "" if there is none.
std::string text_of_token(const JsonField& field) {
  return field.value().is_object() ? field.at("content").string() : field.string_or("");
}

/// "chat_template": a string, or a list of named ones, of which "default" is for chats.
std::string text_of_template(const JsonField& field) {
  if (!field.value().is_array()) return field.string_or("");
  for (std::size_t i = 0; i < field.size(); ++i) {
    const JsonField entry = field.at(i);
    if (entry.at("name").string() == "default") return entry.at("template").string();
  }
  return {};
}

}  // namespace

ChatTemplate::ChatTemplate(std::string_view jinja, std::string bos_token, std::string eos_token)
    : is_v2_(writes_v2(jinja)),
      marks_with_user_(marks_with_user(jinja)),
      joins_system_(contains(jinja, "is_first_sp")),
      drops_thoughts_(contains(jinja, "split('</think>')[-1]")),
      opens_thought_(contains(jinja, "<｜Assistant｜><think>")),
      bos_token_(std::move(bos_token)),
      eos_token_(std::move(eos_token)) {
  if (!is_v2_ && !writes_v3(jinja)) {
    throw Unsupported("chat_template", "of another model family", kForms);
  }
}

std::string ChatTemplate::render(std::span<const ChatMessage> messages) const {
  check_roles(messages);
  return bos_token_ + (is_v2_ ? render_v2(messages) : render_v3(messages));
}

std::string ChatTemplate::render_v2(std::span<const ChatMessage> messages) const {
  std::string prompt;
  for (const auto& [role, content] : messages) {
    if (role == "assistant") {
      prompt += "Assistant: " + content + eos_token_;
    } else {
      prompt += (role == "user" ? "User: " : "") + content + "\n\n";
    }
  }
  return prompt + "Assistant:";
}

std::string ChatTemplate::render_v3(std::span<const ChatMessage> messages) const {
  std::string system;
  std::string turns;
  bool first_system = true;
  bool marked = false;  // <｜Assistant｜> is written
  for (const auto& [role, content] : messages) {
    if (role == "system") {
      system = first_system || !joins_system_ ? content : system + "\n\n" + content;
      first_system = false;
    } else if (role == "user") {
      turns.append(kUser).append(content).append(marks_with_user_ ? kAssistant : "");
      marked = marks_with_user_;
    } else {
      turns.append(marks_with_user_ ? "" : kAssistant)
          .append(drops_thoughts_ ? after_last(content, kEndOfThought) : content)
          .append(kEndOfSentence);
      marked = false;
    }
  }
  if (!marked) turns.append(kAssistant);
  if (opens_thought_) turns.append("<think>\n");
  return system + turns;
}

ChatTemplate read_chat_template(const std::filesystem::path& folder) {
  json config = json::object();
  if (const auto path = folder / "tokenizer_config.json"; std::filesystem::exists(path)) {
    config = parse_json_file(path, kMaxTemplateBytes, kTemplateDepth);
  }
  const JsonField fields(config, "tokenizer_config.json");
  const auto path = folder / "chat_template.jinja";
  const std::string jinja = std::filesystem::exists(path)
                                ? std::string(MappedFile(path, kMaxTemplateBytes).text())
                                : text_of_template(fields.at("chat_template"));
  if (jinja.empty()) throw Unsupported("chat_template", "the model has none", kForms);
  return {jinja, text_of_token(fields.at("bos_token")), text_of_token(fields.at("eos_token"))};
}

}  // namespace mla::proto
