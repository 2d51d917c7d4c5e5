#include "proto/added_tokens.h"

#include <algorithm>
#include <utility>

#include "core/utf8.h"

namespace mla::proto {
namespace {

/// Unicode's White_Space.
bool is_space(char32_t c) {
  return (c >= 0x09 && c <= 0x0d) || c == 0x20 || c == 0x85 || c == 0xa0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f ||
         c == 0x3000;
}

/// Where the last character of `text` begins.
std::size_t last_character(std::string_view text) {
  std::size_t begin = text.size() - 1;
  while ((static_cast<unsigned char>(text[begin]) & 0xc0) == 0x80) --begin;
  return begin;
}

std::size_t trailing_space(std::string_view text) {
  std::size_t end = text.size();
  while (end > 0) {
    const std::size_t begin = last_character(text.substr(0, end));
    if (!is_space(first_code_point(text.substr(begin)))) break;
    end = begin;
  }
  return text.size() - end;
}

std::size_t leading_space(std::string_view text) {
  std::size_t bytes = 0;
  while (bytes < text.size() && is_space(first_code_point(text.substr(bytes)))) {
    bytes += first_utf8_piece(text.substr(bytes)).bytes;
  }
  return bytes;
}

}  // namespace

AddedTokens::AddedTokens(std::vector<AddedToken> tokens)
    : tokens_(std::move(tokens)), token_at_{-1} {
  for (std::size_t i = 0; i < tokens_.size(); ++i) {
    std::uint64_t node = 0;
    for (const char c : tokens_[i].content) {
      const auto [edge, is_new] = next_.try_emplace(node << 8 | static_cast<unsigned char>(c),
                                                    static_cast<std::uint32_t>(token_at_.size()));
      if (is_new) token_at_.push_back(-1);
      node = edge->second;
    }
    if (node != 0) token_at_[node] = static_cast<std::int32_t>(i);
  }
}

const AddedToken* AddedTokens::longest_at(std::string_view text) const {
  std::int32_t longest = -1;
  std::uint64_t node = 0;
  for (const char c : text) {
    const auto edge = next_.find(node << 8 | static_cast<unsigned char>(c));
    if (edge == next_.end()) break;
    node = edge->second;
    if (token_at_[node] >= 0) longest = token_at_[node];
  }
  return longest < 0 ? nullptr : &tokens_[static_cast<std::size_t>(longest)];
}

void AddedTokens::split(std::string_view text,
                        const std::function<void(std::string_view)>& take_text,
                        const std::function<void(std::int32_t)>& take_token) const {
  std::size_t taken = 0;
  for (std::size_t i = 0; i < text.size();) {
    const AddedToken* token = longest_at(text.substr(i));
    if (token == nullptr) {
      ++i;
      continue;
    }
    std::size_t begin = i;
    std::size_t end = i + token->content.size();
    if (token->lstrip) begin -= trailing_space(text.substr(taken, begin - taken));
    if (token->rstrip) end += leading_space(text.substr(end));
    if (begin > taken) take_text(text.substr(taken, begin - taken));
    take_token(token->id);
    taken = i = end;
  }
  if (taken < text.size()) take_text(text.substr(taken));
}

}  // namespace mla::proto
