#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "proto/chat_template.h"
#include "proto/completions.h"
#include "proto/tokenizer.h"

namespace mla::launch {

/// A model's tokenizer and chat template. What the model's folder lacks, or what of it is not
/// understood, fails the requests that need it and no others.
class TextTools {
 public:
  /// None: prompts must be token ids.
  TextTools() = default;
  explicit TextTools(const std::filesystem::path& model_folder);

  /// @throws proto::RequestError for a prompt that cannot be tokenized
  std::vector<std::int32_t> tokens(const proto::Prompt& prompt) const;

  /// Null if there is none.
  const proto::Tokenizer* tokenizer() const { return tokenizer_ ? &*tokenizer_ : nullptr; }

 private:
  std::optional<proto::Tokenizer> tokenizer_;
  std::optional<proto::ChatTemplate> chat_;
  std::string why_no_tokenizer_ = "prompt: a text, expected token ids: the model has no tokenizer";
  std::string why_no_chat_;
};

}  // namespace mla::launch
