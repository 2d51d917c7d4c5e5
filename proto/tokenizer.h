#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/utf8.h"
#include "proto/added_tokens.h"
#include "proto/bpe.h"
#include "proto/pre_tokenizer.h"

namespace mla::proto {

/// What a tokenizer.json and a tokenizer_config.json say, as `Tokenizer` uses it.
struct TokenizerSpec {
  struct Replacement {
    std::string from;  ///< "": the beginning of a text
    std::string to;
  };
  struct Token {
    std::string bytes;  ///< what it adds to a text; "" for ids that are no token
    bool special = false;
  };

  std::vector<AddedToken> added;
  std::vector<Replacement> normalizer;
  std::vector<SplitStep> splits;
  BpeModel bpe;
  std::vector<Token> tokens;         ///< by id
  std::vector<std::int32_t> prefix;  ///< what `encode` puts before a prompt
  std::vector<std::int32_t> suffix;  ///< and after it
  bool strip_first_space = false;    ///< of decoded text
  std::optional<std::int32_t> bos_id;
  std::optional<std::int32_t> eos_id;
};

/// Reads the tokenizer of a Hugging Face model: tokenizer.json and, if it is there,
/// tokenizer_config.json of a folder. @throws FormatError; Unsupported, by name, for what is not
/// understood.
TokenizerSpec read_tokenizer(const std::filesystem::path& folder);

/// Whether the prompt gets the tokens that the model expects around it (begin of text).
enum class AddSpecial { kNo, kYes };

/// Longest prompt that is encoded.
inline constexpr std::size_t kMaxPromptBytes = std::size_t{1} << 28;

/// Text to tokens and back, as Hugging Face's tokenizers do it for byte-pair encodings.
/// Thread-safe.
class Tokenizer {
 public:
  explicit Tokenizer(TokenizerSpec spec);

  /// Tokens of `text`; special tokens that are written in it are found. Time is O(n log n).
  /// @throws FormatError if `text` is not UTF-8 or too long; NotCompiled in a build without PCRE2.
  std::vector<std::int32_t> encode(std::string_view text, AddSpecial add_special) const;

  /// The text of tokens without the special ones; ids that are no token add nothing. What is not
  /// UTF-8 becomes U+FFFD.
  std::string decode(std::span<const std::int32_t> ids) const;

  /// The bytes of one token, special or not: perhaps a part of a character. "" if there is none.
  std::string_view token_bytes(std::int32_t id) const;
  bool is_special(std::int32_t id) const;

  /// One past the largest id.
  std::int32_t size() const { return static_cast<std::int32_t>(spec_.tokens.size()); }
  std::optional<std::int32_t> bos_id() const { return spec_.bos_id; }
  std::optional<std::int32_t> eos_id() const { return spec_.eos_id; }

 private:
  friend class TextStream;

  void encode_text(std::string_view text, Bpe::Scratch& scratch,
                   std::vector<std::int32_t>& ids) const;
  std::string normalized(std::string_view text) const;
  AddedTokens added_tokens(bool in_normalized) const;

  TokenizerSpec spec_;  // but for its `bpe`
  AddedTokens raw_added_;
  AddedTokens normalized_added_;
  PreTokenizer pre_tokenizer_;
  Bpe bpe_;
};

/// Decodes tokens as they come. All text together is what `Tokenizer::decode` gives.
class TextStream {
 public:
  /// `tokenizer` outlives the stream.
  explicit TextStream(const Tokenizer& tokenizer);

  /// The text that token `id` completes; bytes of a character that is not complete are held back.
  std::string push(std::int32_t id);

  /// What was held back; the stream begins anew.
  std::string finish();

 private:
  const Tokenizer* tokenizer_;
  Utf8Stream text_;
  bool strip_space_;
};

}  // namespace mla::proto
