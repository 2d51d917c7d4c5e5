#include "proto/tokenizer_vocab.h"

#include <algorithm>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "core/error.h"
#include "proto/token_text.h"

namespace mla::proto {
namespace {

/// The id of each token of the model, by its spelling in the file.
using Vocab = std::unordered_map<std::string, std::int32_t>;

Vocab read_vocab(const JsonField& field) {
  if (!field.value().is_object()) field.expected("an object");
  Vocab vocab;
  vocab.reserve(field.value().size());
  for (const auto& [token, id] : field.value().items()) {
    const JsonField entry(id, field.name());
    vocab.emplace(token, static_cast<std::int32_t>(entry.integer(0, kMaxTokenId)));
  }
  return vocab;
}

/// ["a", "b"], or "a b".
std::pair<std::string, std::string> read_pair(const JsonField& merge) {
  if (merge.value().is_array()) {
    if (merge.size() != 2) merge.expected("two tokens");
    return {merge.at(0).string(), merge.at(1).string()};
  }
  const std::string& pair = merge.string();
  const std::size_t space = pair.find(' ');
  if (space == std::string::npos || pair.find(' ', space + 1) != std::string::npos) {
    merge.expected("two tokens and a space between them");
  }
  return {pair.substr(0, space), pair.substr(space + 1)};
}

std::vector<BpeModel::Merge> read_merges(const JsonField& field, const Vocab& vocab) {
  std::vector<BpeModel::Merge> merges;
  merges.reserve(field.size());
  for (std::size_t i = 0; i < field.size(); ++i) {
    const JsonField merge = field.at(i);
    const auto [left, right] = read_pair(merge);
    const auto id_of = [&](const std::string& token) {
      const auto found = vocab.find(token);
      if (found == vocab.end()) {
        throw FormatError(merge.name(), "'" + token + "'", "a token of the vocabulary");
      }
      return found->second;
    };
    merges.push_back({id_of(left), id_of(right), id_of(left + right)});
  }
  return merges;
}

void check_model(const JsonField& model) {
  model.allow_only({"type", "dropout", "unk_token", "continuing_subword_prefix",
                    "end_of_word_suffix", "fuse_unk", "byte_fallback", "ignore_merges", "vocab",
                    "merges"});
  // Old files name no type.
  if (model.at("type").string_or("BPE") != "BPE") model.at("type").unsupported("BPE");
  if (!model.at("dropout").is_null() && model.at("dropout").number() != 0) {
    model.at("dropout").unsupported("none");
  }
  for (const char* affix : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    if (!model.at(affix).string_or("").empty()) model.at(affix).unsupported("none");
  }
}

/// The byte that a token like <0x0A> stands for, or -1.
int byte_of(std::string_view token) {
  if (token.size() != 6 || !token.starts_with("<0x") || token[5] != '>') return -1;
  constexpr std::string_view kDigits = "0123456789ABCDEF";
  const std::size_t high = kDigits.find(token[3]);
  const std::size_t low = kDigits.find(token[4]);
  return high > 15 || low > 15 ? -1 : static_cast<int>(high * 16 + low);
}

/// The bytes that a token adds to a text.
std::string text_of(const std::string& token, bool byte_level) {
  if (byte_level) return bytes_of_token(token).value_or(token);
  if (const int byte = byte_of(token); byte >= 0) return {static_cast<char>(byte)};
  return replace_all(token, kSpaceMark, " ");
}

/// The model's tokens, as bytes or characters.
void fill_vocab(const Vocab& vocab, const std::string& name, TokenizerSpec& spec) {
  spec.bpe.byte_ids.fill(-1);
  for (const auto& [token, id] : vocab) {
    add_token(id, token, false, spec);
    if (spec.bpe.byte_level) {
      const auto bytes = bytes_of_token(token);
      if (!bytes) continue;  // never made by merges
      if (bytes->size() == 1) spec.bpe.byte_ids[static_cast<unsigned char>((*bytes)[0])] = id;
      spec.bpe.vocab.emplace(*bytes, id);
    } else {
      if (const int byte = byte_of(token); byte >= 0) spec.bpe.byte_ids[byte] = id;
      spec.bpe.vocab.emplace(token, id);
    }
  }
  const auto missing = std::ranges::find(spec.bpe.byte_ids, -1);
  if (missing != spec.bpe.byte_ids.end()) {
    throw Unsupported(name,
                      "no token for byte " + std::to_string(missing - spec.bpe.byte_ids.begin()),
                      "a token for each of the 256 bytes");
  }
}

}  // namespace

void add_token(std::int32_t id, const std::string& spelling, bool special, TokenizerSpec& spec) {
  const auto at = static_cast<std::size_t>(id);
  if (at >= spec.tokens.size()) spec.tokens.resize(at + 1);
  spec.tokens[at] = {text_of(spelling, spec.bpe.byte_level), special};
}

void read_bpe(const JsonField& model, bool byte_level, TokenizerSpec& spec) {
  check_model(model);
  spec.bpe.byte_level = byte_level;
  spec.bpe.ignore_merges = model.at("ignore_merges").boolean_or(false);
  const Vocab vocab = read_vocab(model.at("vocab"));
  spec.bpe.merges = read_merges(model.at("merges"), vocab);
  fill_vocab(vocab, model.at("vocab").name(), spec);
}

}  // namespace mla::proto
