#include "proto/tokenizer.h"

#include <algorithm>
#include <cstdio>
#include <iterator>
#include <utility>

#include "core/error.h"
#include "proto/token_text.h"

namespace mla::proto {
namespace {

void check_prompt(std::string_view text) {
  if (text.size() > kMaxPromptBytes) {
    throw FormatError("prompt", std::to_string(text.size()) + " bytes",
                      "at most " + std::to_string(kMaxPromptBytes));
  }
  if (const auto place = find_invalid_utf8(text)) {
    char byte[8];
    std::snprintf(byte, sizeof byte, "0x%02x", static_cast<unsigned char>(text[*place]));
    throw FormatError("prompt", "byte " + std::to_string(*place) + " (" + byte + ")",
                      "text in UTF-8");
  }
}

}  // namespace

Tokenizer::Tokenizer(TokenizerSpec spec)
    : spec_(std::move(spec)),
      raw_added_(added_tokens(false)),
      normalized_added_(added_tokens(true)),
      pre_tokenizer_(spec_.splits),
      bpe_(std::move(spec_.bpe)) {}

AddedTokens Tokenizer::added_tokens(bool in_normalized) const {
  std::vector<AddedToken> tokens;
  std::ranges::copy_if(spec_.added, std::back_inserter(tokens),
                       [&](const AddedToken& token) { return token.normalized == in_normalized; });
  if (in_normalized) {
    for (AddedToken& token : tokens) token.content = normalized(token.content);
  }
  return AddedTokens(std::move(tokens));
}

std::string Tokenizer::normalized(std::string_view text) const {
  std::string result(text);
  for (const auto& [from, to] : spec_.normalizer) {
    result = from.empty() ? to + result : replace_all(result, from, to);
  }
  return result;
}

std::vector<std::int32_t> Tokenizer::encode(std::string_view text, AddSpecial add_special) const {
  check_prompt(text);
  std::vector<std::int32_t> ids;
  if (add_special == AddSpecial::kYes) ids = spec_.prefix;
  Bpe::Scratch scratch;
  const auto take_token = [&](std::int32_t id) { ids.push_back(id); };
  raw_added_.split(
      text,
      [&](std::string_view piece) {
        normalized_added_.split(
            normalized(piece), [&](std::string_view rest) { encode_text(rest, scratch, ids); },
            take_token);
      },
      take_token);
  if (add_special == AddSpecial::kYes) {
    ids.insert(ids.end(), spec_.suffix.begin(), spec_.suffix.end());
  }
  return ids;
}

void Tokenizer::encode_text(std::string_view text, Bpe::Scratch& scratch,
                            std::vector<std::int32_t>& ids) const {
  pre_tokenizer_.split(text, [&](std::string_view word) { bpe_.encode(word, scratch, ids); });
}

std::string_view Tokenizer::token_bytes(std::int32_t id) const {
  return id >= 0 && id < size() ? std::string_view(spec_.tokens[id].bytes) : std::string_view();
}

bool Tokenizer::is_special(std::int32_t id) const {
  return id >= 0 && id < size() && spec_.tokens[id].special;
}

std::string Tokenizer::decode(std::span<const std::int32_t> ids) const {
  TextStream stream(*this);
  std::string text;
  for (const std::int32_t id : ids) text += stream.push(id);
  return text + stream.finish();
}

TextStream::TextStream(const Tokenizer& tokenizer)
    : tokenizer_(&tokenizer), strip_space_(tokenizer.spec_.strip_first_space) {}

std::string TextStream::push(std::int32_t id) {
  if (tokenizer_->is_special(id)) return {};
  std::string_view bytes = tokenizer_->token_bytes(id);
  if (strip_space_ && !bytes.empty()) {
    if (bytes.front() == ' ') bytes.remove_prefix(1);
    strip_space_ = false;
  }
  return text_.push(bytes);
}

std::string TextStream::finish() {
  strip_space_ = tokenizer_->spec_.strip_first_space;
  return text_.finish();
}

}  // namespace mla::proto
