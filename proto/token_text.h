#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace mla::proto {

/// What vocabularies of characters write for a space: U+2581.
inline constexpr std::string_view kSpaceMark = "\xe2\x96\x81";

/// Byte-level vocabularies write each byte as one printable character: the printable ones of
/// Latin-1 as themselves, the others, in order, as U+0100 and on (GPT-2, Radford et al. 2019).
/// The bytes that such a token stands for; none if a character stands for no byte. `token` is
/// UTF-8.
std::optional<std::string> bytes_of_token(std::string_view token);

/// `text` with every `from` (not empty) replaced by `to`.
std::string replace_all(std::string_view text, std::string_view from, std::string_view to);

}  // namespace mla::proto
