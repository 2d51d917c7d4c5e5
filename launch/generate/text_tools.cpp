#include "launch/generate/text_tools.h"

#include "core/error.h"

namespace mla::launch {

TextTools::TextTools(const std::filesystem::path& model_folder) {
  try {
    tokenizer_.emplace(proto::read_tokenizer(model_folder));
  } catch (const Error& error) {
    why_no_tokenizer_ = error.what();
  }
  try {
    chat_ = proto::read_chat_template(model_folder);
  } catch (const Error& error) {
    why_no_chat_ = error.what();
  }
}

std::vector<std::int32_t> TextTools::tokens(const proto::Prompt& prompt) const {
  if (const auto* ids = std::get_if<std::vector<std::int32_t>>(&prompt)) return *ids;
  const auto* messages = std::get_if<std::vector<proto::ChatMessage>>(&prompt);
  if (!tokenizer_) throw proto::RequestError{.message = why_no_tokenizer_};
  if (messages != nullptr && !chat_) throw proto::RequestError{.message = why_no_chat_};
  try {
    return messages != nullptr
               ? tokenizer_->encode(chat_->render(*messages), proto::AddSpecial::kNo)
               : tokenizer_->encode(std::get<std::string>(prompt), proto::AddSpecial::kYes);
  } catch (const Error& error) {
    throw proto::RequestError{.message = error.what()};
  }
}

}  // namespace mla::launch
