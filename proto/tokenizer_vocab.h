#pragma once

#include <cstdint>
#include <string>

#include "proto/json_reader.h"
#include "proto/tokenizer.h"

// A part of reading tokenizer.json: only for .cpp files of this folder.

namespace mla::proto {

/// Largest id of a token.
inline constexpr std::int64_t kMaxTokenId = (1 << 22) - 1;

/// Reads the member "model": vocabulary and merges, in `spec.bpe` and `spec.tokens`. `byte_level`:
/// tokens spell bytes, else characters. @throws FormatError, Unsupported.
void read_bpe(const JsonField& model, bool byte_level, TokenizerSpec& spec);

/// Makes the token that the file spells `spelling` token `id` of `spec.tokens`.
void add_token(std::int32_t id, const std::string& spelling, bool special, TokenizerSpec& spec);

}  // namespace mla::proto
