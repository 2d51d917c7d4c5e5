#include "proto/token_text.h"

#include <array>
#include <cstdint>

#include "core/utf8.h"

namespace mla::proto {
namespace {

constexpr char32_t kEnd = 0x100 + 68;  // 68 bytes are not printable

/// Byte of each character below kEnd; -1 for none.
constexpr std::array<std::int16_t, kEnd> make_bytes() {
  std::array<std::int16_t, kEnd> bytes{};
  char32_t next = 0x100;
  for (std::int16_t byte = 0; byte < 0x100; ++byte) {
    const bool printable = (byte > 0x20 && byte < 0x7f) || (byte > 0xa0 && byte != 0xad);
    if (!printable) bytes[static_cast<std::size_t>(byte)] = -1;
    bytes[printable ? static_cast<std::size_t>(byte) : next++] = byte;
  }
  return bytes;
}

constexpr auto kBytes = make_bytes();

}  // namespace

std::optional<std::string> bytes_of_token(std::string_view token) {
  std::string bytes;
  while (!token.empty()) {
    const char32_t character = first_code_point(token);
    if (character >= kEnd || kBytes[character] < 0) return std::nullopt;
    bytes += static_cast<char>(kBytes[character]);
    token.remove_prefix(first_utf8_piece(token).bytes);
  }
  return bytes;
}

std::string replace_all(std::string_view text, std::string_view from, std::string_view to) {
  std::string result;
  std::size_t taken = 0;
  for (std::size_t found; (found = text.find(from, taken)) != std::string_view::npos;) {
    result.append(text.substr(taken, found - taken)).append(to);
    taken = found + from.size();
  }
  return result.append(text.substr(taken));
}

}  // namespace mla::proto
