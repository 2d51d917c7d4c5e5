#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace mla::proto {

/// A token that is found in a text as it stands, before any merging.
struct AddedToken {
  std::int32_t id = 0;
  std::string content;
  bool lstrip = false;      ///< takes the white space before it
  bool rstrip = false;      ///< takes the white space after it
  bool normalized = false;  ///< found in normalized text
  bool special = false;     ///< left out when text is made from tokens
};

/// Finds added tokens: at each place the longest, from left to right. Thread-safe.
class AddedTokens {
 public:
  /// Tokens without content are never found.
  explicit AddedTokens(std::vector<AddedToken> tokens);

  /// Calls one of the two for each piece of `text` (UTF-8) in order, none empty, in O(length times
  /// the longest token).
  void split(std::string_view text, const std::function<void(std::string_view)>& take_text,
             const std::function<void(std::int32_t id)>& take_token) const;

 private:
  const AddedToken* longest_at(std::string_view text) const;

  std::vector<AddedToken> tokens_;
  // A trie: the node that a byte leads to from a node (node << 8 | byte), and the token that ends
  // at a node, or -1. Node 0 is the root.
  std::unordered_map<std::uint64_t, std::uint32_t> next_;
  std::vector<std::int32_t> token_at_;
};

}  // namespace mla::proto
