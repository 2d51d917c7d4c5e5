#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace mla::proto {

/// One step that cuts a text into pieces: matches of a pattern, and what lies between them.
struct SplitStep {
  std::string name;           ///< what errors call it
  std::string pattern;        ///< a regular expression of Oniguruma
  bool drop_matches = false;  ///< matches are separators, no pieces
  bool drop_others = false;   ///< only matches are pieces
};

/// Cuts texts into words. Needs PCRE2: in a build without it any step makes `split` throw.
/// Thread-safe.
class PreTokenizer {
 public:
  /// @throws FormatError if a pattern is none; Unsupported if PCRE2 would understand it
  /// differently.
  explicit PreTokenizer(const std::vector<SplitStep>& steps);
  ~PreTokenizer();
  PreTokenizer(PreTokenizer&&) noexcept;
  PreTokenizer& operator=(PreTokenizer&&) noexcept;

  /// Calls `take` for each word of `text` in order, none empty. Each step cuts every piece of the
  /// one before it as if it were a text of its own. `text` is UTF-8, which is not checked.
  /// @throws NotCompiled in a build without PCRE2; Unsupported if matching takes absurdly long.
  void split(std::string_view text, const std::function<void(std::string_view)>& take) const;

 private:
  struct Step;
  std::vector<Step> steps_;
};

}  // namespace mla::proto
