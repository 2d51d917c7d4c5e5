#include "proto/bpe.h"

#include <algorithm>
#include <functional>
#include <utility>

#include "core/utf8.h"

namespace mla::proto {
namespace {

constexpr std::int32_t kNone = -1;  // no symbol, no merge, no id

std::uint64_t pair_key(std::int32_t left, std::int32_t right) {
  return static_cast<std::uint64_t>(left) << 32 | static_cast<std::uint32_t>(right);
}

}  // namespace

Bpe::Bpe(BpeModel model) : model_(std::move(model)) {
  ranks_.reserve(model_.merges.size());
  for (std::size_t rank = 0; rank < model_.merges.size(); ++rank) {
    const BpeModel::Merge& merge = model_.merges[rank];
    ranks_[pair_key(merge.left, merge.right)] = static_cast<std::int32_t>(rank);
  }
}

void Bpe::encode(std::string_view word, Scratch& scratch, std::vector<std::int32_t>& tokens) const {
  if (word.empty()) return;
  if (model_.ignore_merges) {
    if (const auto whole = model_.vocab.find(std::string(word)); whole != model_.vocab.end()) {
      tokens.push_back(whole->second);
      return;
    }
  }
  begin(word, scratch);
  auto& heap = scratch.heap;
  while (!heap.empty()) {
    std::ranges::pop_heap(heap, std::greater());
    const auto rank = static_cast<std::int32_t>(heap.back() >> 32);
    const auto left = static_cast<std::int32_t>(heap.back() & 0xffffffffu);
    heap.pop_back();
    // Neighbours may have merged since this entry was made.
    if (scratch.symbols[left].rank == rank) merge_with_next(left, scratch);
  }
  for (std::int32_t i = 0; i != kNone; i = scratch.symbols[i].next) {
    tokens.push_back(scratch.symbols[i].id);
  }
}

/// Cuts the word into symbols and ranks all pairs.
void Bpe::begin(std::string_view word, Scratch& scratch) const {
  auto& symbols = scratch.symbols;
  symbols.clear();
  const auto add = [&](std::int32_t id) {
    const auto i = static_cast<std::int32_t>(symbols.size());
    symbols.push_back({id, kNone, i - 1, i + 1});
  };
  const auto add_bytes = [&](std::string_view bytes) {
    for (const char byte : bytes) add(model_.byte_ids[static_cast<unsigned char>(byte)]);
  };
  if (model_.byte_level) {
    add_bytes(word);
  } else {
    while (!word.empty()) {
      const std::string_view character = word.substr(0, first_utf8_piece(word).bytes);
      const auto found = model_.vocab.find(std::string(character));
      found != model_.vocab.end() ? add(found->second) : add_bytes(character);
      word.remove_prefix(character.size());
    }
  }
  symbols.back().next = kNone;
  scratch.heap.clear();
  for (std::size_t i = 0; i < symbols.size(); ++i) {
    rank_pair(static_cast<std::int32_t>(i), scratch);
  }
}

/// Looks up the merge of symbol `left` with the next one.
void Bpe::rank_pair(std::int32_t left, Scratch& scratch) const {
  Scratch::Symbol& symbol = scratch.symbols[left];
  symbol.rank = kNone;
  if (symbol.next == kNone) return;
  const auto found = ranks_.find(pair_key(symbol.id, scratch.symbols[symbol.next].id));
  if (found == ranks_.end()) return;
  symbol.rank = found->second;
  scratch.heap.push_back(static_cast<std::uint64_t>(symbol.rank) << 32 |
                         static_cast<std::uint32_t>(left));
  std::ranges::push_heap(scratch.heap, std::greater());
}

void Bpe::merge_with_next(std::int32_t left, Scratch& scratch) const {
  auto& symbols = scratch.symbols;
  Scratch::Symbol& symbol = symbols[left];
  Scratch::Symbol& next = symbols[symbol.next];
  symbol.id = model_.merges[symbol.rank].merged;
  symbol.next = next.next;
  next.rank = kNone;
  if (symbol.next != kNone) symbols[symbol.next].previous = left;
  rank_pair(left, scratch);
  if (symbol.previous != kNone) rank_pair(symbol.previous, scratch);
}

}  // namespace mla::proto
