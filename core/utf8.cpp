#include "core/utf8.h"

namespace mla {
namespace {

constexpr std::string_view kReplacement = "\xef\xbf\xbd";

/// Length of the character that `lead` begins, 0 if none, and the limits of the byte after it,
/// which exclude overlong forms, surrogates and what is past U+10FFFF.
struct Lead {
  std::size_t bytes;
  unsigned char least;
  unsigned char most;
};

Lead lead_of(unsigned char byte) {
  if (byte < 0x80) return {1, 0, 0};
  if (byte < 0xc2) return {0, 0, 0};
  if (byte < 0xe0) return {2, 0x80, 0xbf};
  if (byte == 0xe0) return {3, 0xa0, 0xbf};
  if (byte == 0xed) return {3, 0x80, 0x9f};
  if (byte < 0xf0) return {3, 0x80, 0xbf};
  if (byte == 0xf0) return {4, 0x90, 0xbf};
  if (byte < 0xf4) return {4, 0x80, 0xbf};
  if (byte == 0xf4) return {4, 0x80, 0x8f};
  return {0, 0, 0};
}

}  // namespace

Utf8Piece first_utf8_piece(std::string_view text) {
  const Lead lead = lead_of(static_cast<unsigned char>(text[0]));
  if (lead.bytes == 0) return {Utf8Kind::kInvalid, 1};
  for (std::size_t i = 1; i < lead.bytes; ++i) {
    if (i == text.size()) return {Utf8Kind::kIncomplete, i};
    const auto byte = static_cast<unsigned char>(text[i]);
    const bool follows =
        i == 1 ? byte >= lead.least && byte <= lead.most : byte >= 0x80 && byte <= 0xbf;
    if (!follows) return {Utf8Kind::kInvalid, i};
  }
  return {Utf8Kind::kCharacter, lead.bytes};
}

std::optional<std::size_t> find_invalid_utf8(std::string_view text) {
  for (std::size_t i = 0; i < text.size();) {
    const Utf8Piece piece = first_utf8_piece(text.substr(i));
    if (piece.kind != Utf8Kind::kCharacter) return i;
    i += piece.bytes;
  }
  return std::nullopt;
}

void append_utf8(char32_t code_point, std::string& text) {
  const auto add = [&](char32_t bits) { text += static_cast<char>(bits); };
  if (code_point < 0x80) return add(code_point);
  const int bytes = code_point < 0x800 ? 2 : code_point < 0x10000 ? 3 : 4;
  constexpr char32_t kLeads[] = {0xc0, 0xe0, 0xf0};
  add(kLeads[bytes - 2] | code_point >> (6 * (bytes - 1)));
  for (int i = bytes - 2; i >= 0; --i) add(0x80 | (code_point >> (6 * i) & 0x3f));
}

char32_t first_code_point(std::string_view text) {
  const std::size_t bytes = first_utf8_piece(text).bytes;
  const auto lead = static_cast<unsigned char>(text[0]);
  if (bytes == 1) return lead;
  char32_t code_point = lead & (0x7f >> bytes);
  for (std::size_t i = 1; i < bytes; ++i) {
    code_point = code_point << 6 | (static_cast<unsigned char>(text[i]) & 0x3f);
  }
  return code_point;
}

std::string Utf8Stream::push(std::string_view bytes) {
  held_ += bytes;
  std::string text;
  std::string_view rest = held_;
  while (!rest.empty()) {
    const Utf8Piece piece = first_utf8_piece(rest);
    if (piece.kind == Utf8Kind::kIncomplete) break;
    text += piece.kind == Utf8Kind::kCharacter ? rest.substr(0, piece.bytes) : kReplacement;
    rest.remove_prefix(piece.bytes);
  }
  held_.erase(0, held_.size() - rest.size());
  return text;
}

std::string Utf8Stream::finish() {
  // What is incomplete is one piece: bytes that may follow each other.
  const std::string text(held_.empty() ? std::string_view() : kReplacement);
  held_.clear();
  return text;
}

}  // namespace mla
