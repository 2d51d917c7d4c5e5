#pragma once

#include <filesystem>
#include <span>
#include <string>
#include <string_view>

namespace mla::proto {

struct ChatMessage {
  std::string role;
  std::string content;

  friend bool operator==(const ChatMessage&, const ChatMessage&) = default;
};

/// How a conversation becomes a prompt: DeepSeek's forms. A model's own template is a Jinja
/// program; it is not run but recognized by what it writes.
class ChatTemplate {
 public:
  /// `jinja` is the model's template, `bos_token` and `eos_token` the texts of its tokens.
  /// @throws Unsupported for a template of another form.
  ChatTemplate(std::string_view jinja, std::string bos_token, std::string eos_token);

  /// The prompt that asks for the next answer. Begin of text is part of it, so it is encoded with
  /// AddSpecial::kNo. @throws Unsupported for roles other than system, user and assistant.
  std::string render(std::span<const ChatMessage> messages) const;

 private:
  std::string render_v2(std::span<const ChatMessage> messages) const;
  std::string render_v3(std::span<const ChatMessage> messages) const;

  bool is_v2_ = false;            // "User: ", "Assistant: "; else <｜User｜>, <｜Assistant｜>
  bool marks_with_user_ = false;  // <｜Assistant｜> ends what a user says, else begins an answer
  bool joins_system_ = false;     // all system messages count, else the last one
  bool drops_thoughts_ = false;   // of earlier answers, up to </think>
  bool opens_thought_ = false;    // the answer begins with <think>
  std::string bos_token_;
  std::string eos_token_;
};

/// The template of a Hugging Face model: chat_template.jinja of a folder, or else the member
/// "chat_template" of tokenizer_config.json. @throws Unsupported if there is none or it has another
/// form; FormatError.
ChatTemplate read_chat_template(const std::filesystem::path& folder);

}  // namespace mla::proto
