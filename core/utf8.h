#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace mla {

/// What stands at the beginning of a text.
enum class Utf8Kind {
  kCharacter,   ///< a well-formed character
  kInvalid,     ///< bytes that begin no character
  kIncomplete,  ///< the text ends within what may still become a character
};

/// The first character of a text, or the longest piece that one U+FFFD stands for (Unicode,
/// section 3.9, "maximal subparts").
struct Utf8Piece {
  Utf8Kind kind;
  std::size_t bytes;  ///< at least 1
};

/// `text` is not empty.
Utf8Piece first_utf8_piece(std::string_view text);

/// Where the first piece begins that is no character; none if all of `text` is UTF-8.
std::optional<std::size_t> find_invalid_utf8(std::string_view text);

/// Appends the character with this code point, at most U+10FFFF.
void append_utf8(char32_t code_point, std::string& text);

/// The code point of the well-formed character that `text` begins with.
char32_t first_code_point(std::string_view text);

/// Turns bytes that arrive in pieces into UTF-8: a character that is not complete yet is held back,
/// and what can be no character becomes U+FFFD. However the bytes are cut, all text together is the
/// same.
class Utf8Stream {
 public:
  /// The text that `bytes` complete.
  std::string push(std::string_view bytes);

  /// What was held back, as U+FFFD; the stream begins anew.
  std::string finish();

 private:
  std::string held_;
};

}  // namespace mla
