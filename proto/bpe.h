#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace mla::proto {

/// What tokens there are, and which pairs of them merge.
struct BpeModel {
  /// A token's bytes to its id. In a byte-level vocabulary tokens are any bytes; in one of
  /// characters they are UTF-8.
  std::unordered_map<std::string, std::int32_t> vocab;
  /// Tokens that stand for one byte.
  std::array<std::int32_t, 256> byte_ids{};
  /// Words begin as bytes, or else as characters, and as bytes where a character is no token.
  bool byte_level = true;
  /// A word that is a token is that token, whatever the merges make of it.
  bool ignore_merges = false;

  struct Merge {
    std::int32_t left;
    std::int32_t right;
    std::int32_t merged;
  };
  std::vector<Merge> merges;  ///< the earlier, the sooner; of equal pairs the last counts
};

/// Byte-pair encoding (Sennrich et al. 2016): while some neighbours may merge, those that come
/// first in the list of merges do, of equal ones the leftmost. Thread-safe.
class Bpe {
 public:
  explicit Bpe(BpeModel model);

  /// Memory that calls reuse.
  class Scratch {
    friend class Bpe;

    struct Symbol {
      std::int32_t id;
      std::int32_t rank;      // of the merge with the next symbol; -1: none, or merged into another
      std::int32_t previous;  // -1: none
      std::int32_t next;      // -1: none
    };
    std::vector<Symbol> symbols;
    std::vector<std::uint64_t> heap;  // rank << 32 | symbol, smallest first
  };

  /// Appends the tokens of `word`, in O(n log n). `word` is below 2^31 bytes, and UTF-8 if the
  /// vocabulary is one of characters.
  void encode(std::string_view word, Scratch& scratch, std::vector<std::int32_t>& tokens) const;

 private:
  void begin(std::string_view word, Scratch& scratch) const;
  void rank_pair(std::int32_t left, Scratch& scratch) const;
  void merge_with_next(std::int32_t left, Scratch& scratch) const;

  BpeModel model_;
  std::unordered_map<std::uint64_t, std::int32_t> ranks_;  // of a pair of ids
};

}  // namespace mla::proto
