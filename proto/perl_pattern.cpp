#include "proto/perl_pattern.h"

#include <cctype>
#include <utility>

#include "core/error.h"

namespace mla::proto {
namespace {

class Translation {
 public:
  Translation(std::string_view pattern, std::string_view name) : pattern_(pattern), name_(name) {}

  std::string run() {
    while (at_ < pattern_.size()) {
      if (pattern_[at_] == '\\' && at_ + 1 < pattern_.size()) {
        escape(pattern_[at_ + 1]);
        at_ += 2;
      } else {
        if (in_class_) {
          within_class();
        } else if (pattern_[at_] == '[') {
          in_class_ = true;
          for (const char first : {'^', ']'}) {
            if (pattern_.substr(at_ + 1, 1) == std::string_view(&first, 1))
              result_ += pattern_[at_++];
          }
        }
        result_ += pattern_[at_++];
      }
    }
    return std::move(result_);
  }

 private:
  void escape(char letter) {
    // U+180E is a space to PCRE2's \s, not to Oniguruma's.
    constexpr std::string_view kSameInBoth = "dDpPrntfx";
    const bool is_letter = std::isalnum(static_cast<unsigned char>(letter)) != 0;
    if (letter == 's' || letter == 'S') {
      result_ += letter == 's' ? "\\p{White_Space}" : "\\P{White_Space}";
    } else if (!is_letter || kSameInBoth.find(letter) != std::string_view::npos) {
      result_ += {'\\', letter};
    } else {
      refuse({'\\', letter});
    }
  }

  void within_class() {
    const std::string_view pair = pattern_.substr(at_, 2);
    if (pair == "&&") refuse("[..&&..]");
    if (pair[0] == '[') refuse("[..[..]..]");
    if (pair[0] == ']') in_class_ = false;
  }

  [[noreturn]] void refuse(const std::string& what) const {
    throw Unsupported(name_, what, "a regular expression without it");
  }

  std::string_view pattern_;
  std::string_view name_;
  std::string result_;
  std::size_t at_ = 0;
  bool in_class_ = false;
};

}  // namespace

std::string perl_pattern(std::string_view pattern, std::string_view name) {
  return Translation(pattern, name).run();
}

std::string quoted_pattern(std::string_view text) {
  std::string pattern;
  for (const char c : text) {
    if (std::ispunct(static_cast<unsigned char>(c)) != 0) pattern += '\\';
    pattern += c;
  }
  return pattern;
}

}  // namespace mla::proto
