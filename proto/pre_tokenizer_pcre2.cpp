#define PCRE2_CODE_UNIT_WIDTH 8
#include <array>
#include <cstdint>
#include <memory>
#include <new>
#include <span>
#include <utility>

#include <pcre2.h>

#include "core/error.h"
#include "proto/perl_pattern.h"
#include "proto/pre_tokenizer.h"

namespace mla::proto {
namespace {

// Some seconds: only a pattern that takes quadratic time on a text comes here.
constexpr std::uint32_t kMaxMatchSteps = 500'000'000;

template <auto free>
struct Free {
  template <class T>
  void operator()(T* object) const {
    free(object);
  }
};
using Code = std::unique_ptr<pcre2_code, Free<pcre2_code_free>>;
using MatchData = std::unique_ptr<pcre2_match_data, Free<pcre2_match_data_free>>;
using MatchContext = std::unique_ptr<pcre2_match_context, Free<pcre2_match_context_free>>;

std::string message_of(int error) {
  std::array<unsigned char, 256> text{};
  pcre2_get_error_message(error, text.data(), text.size());
  return reinterpret_cast<const char*>(text.data());
}

PCRE2_SPTR units(std::string_view text) {
  return reinterpret_cast<PCRE2_SPTR>(text.data());
}

Code compile(const SplitStep& step) {
  const std::string pattern = perl_pattern(step.pattern, step.name);
  int error = 0;
  std::size_t place = 0;
  // Oniguruma's ^ and $ are the ends of lines.
  Code code(pcre2_compile(units(pattern), pattern.size(), PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE,
                          &error, &place, nullptr));
  if (code == nullptr) {
    throw FormatError(step.name, message_of(error), "a regular expression that PCRE2 understands");
  }
  // Where there is no just-in-time compiler, the interpreter does.
  pcre2_jit_compile(code.get(), PCRE2_JIT_COMPLETE);
  return code;
}

MatchContext make_context() {
  MatchContext context(pcre2_match_context_create(nullptr));
  if (context == nullptr) throw std::bad_alloc();
  pcre2_set_match_limit(context.get(), kMaxMatchSteps);
  return context;
}

}  // namespace

struct PreTokenizer::Step {
  std::string name;
  Code code;
  MatchContext context;
  bool drop_matches;
  bool drop_others;

  /// Calls `take` for each piece of `text`.
  template <class Take>
  void split(std::string_view text, Take take) const;
  /// Finds the first match from byte `from` on. @throws Unsupported.
  bool find(std::string_view text, std::size_t from, pcre2_match_data* match) const;
  /// Cuts `text` by all of `steps`.
  static void split_by_all(std::span<const Step> steps, std::string_view text,
                           const std::function<void(std::string_view)>& take);
};

bool PreTokenizer::Step::find(std::string_view text, std::size_t from,
                              pcre2_match_data* match) const {
  const auto run = [&](std::uint32_t options) {
    return pcre2_match(code.get(), units(text), text.size(), from,
                       PCRE2_NO_UTF_CHECK | PCRE2_NOTEMPTY | options, match, context.get());
  };
  int found = run(0);
  if (found == PCRE2_ERROR_JIT_STACKLIMIT) found = run(PCRE2_NO_JIT);
  if (found == PCRE2_ERROR_NOMATCH) return false;
  if (found < 0) throw Unsupported(name, message_of(found), "a text that the pattern can cut");
  return true;
}

template <class Take>
void PreTokenizer::Step::split(std::string_view text, Take take) const {
  const MatchData match(pcre2_match_data_create_from_pattern(code.get(), nullptr));
  if (match == nullptr) throw std::bad_alloc();
  const std::size_t* span = pcre2_get_ovector_pointer(match.get());
  std::size_t taken = 0;
  while (taken < text.size() && find(text, taken, match.get())) {
    if (!drop_others && span[0] > taken) take(text.substr(taken, span[0] - taken));
    if (!drop_matches) take(text.substr(span[0], span[1] - span[0]));
    taken = span[1];
  }
  if (!drop_others && taken < text.size()) take(text.substr(taken));
}

void PreTokenizer::Step::split_by_all(std::span<const Step> steps, std::string_view text,
                                      const std::function<void(std::string_view)>& take) {
  if (steps.empty()) return take(text);
  steps.front().split(text,
                      [&](std::string_view piece) { split_by_all(steps.subspan(1), piece, take); });
}

PreTokenizer::PreTokenizer(const std::vector<SplitStep>& steps) {
  for (const SplitStep& step : steps) {
    steps_.push_back(
        {step.name, compile(step), make_context(), step.drop_matches, step.drop_others});
  }
}

PreTokenizer::~PreTokenizer() = default;
PreTokenizer::PreTokenizer(PreTokenizer&&) noexcept = default;
PreTokenizer& PreTokenizer::operator=(PreTokenizer&&) noexcept = default;

void PreTokenizer::split(std::string_view text,
                         const std::function<void(std::string_view)>& take) const {
  if (!text.empty()) Step::split_by_all(steps_, text, take);
}

}  // namespace mla::proto
