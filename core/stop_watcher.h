#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace mla {

/// When a request ends.
struct StopRules {
  std::vector<std::string> strings;  ///< none empty; the text ends before the first one
  std::vector<std::int32_t> ids;     ///< tokens that end a request as the end-of-text token does
  std::int64_t min_tokens = 0;       ///< before so many tokens nothing above ends a request
  std::int64_t max_tokens = std::numeric_limits<std::int64_t>::max();
  bool ignore_eos = false;  ///< the model's end-of-text tokens are tokens like others

  friend bool operator==(const StopRules&, const StopRules&) = default;
};

enum class FinishReason { kNone, kStop, kLength };

/// Watches the tokens and the text of one request, and says when it is finished. Text that may be
/// the beginning of a stop string is held back, so what was handed out never has to be taken back.
/// Of several stop strings the one that is complete first counts, so the text does not depend on
/// how tokens cut it.
class StopWatcher {
 public:
  /// `eos_ids`: the model's end-of-text tokens.
  StopWatcher(StopRules rules, std::span<const std::int32_t> eos_ids);

  /// Tokens that must not be chosen next, since `min_tokens` are not reached: their logits are to
  /// be set to -inf.
  std::span<const std::int32_t> banned() const;

  /// Takes the next token and the text that it completes, and returns the text that is certain now.
  /// The text of a token that ends the request is dropped. Not to be called once finished.
  std::string push(std::int32_t token, std::string_view text);

  /// Takes text that was held back elsewhere when the last token came (an incomplete character),
  /// and returns all that is left: nothing after a stop string, which may be complete only now.
  std::string finish(std::string_view text);

  FinishReason reason() const { return reason_; }
  bool finished() const { return reason_ != FinishReason::kNone; }
  std::int64_t tokens() const { return tokens_; }

 private:
  std::string search(std::string_view text);
  std::size_t held_back() const;

  StopRules rules_;  // `ids` include the end-of-text tokens, unless they are ignored
  std::string pending_;
  std::int64_t tokens_ = 0;
  FinishReason reason_ = FinishReason::kNone;
  bool text_ended_ = false;  // by a stop string
};

}  // namespace mla
