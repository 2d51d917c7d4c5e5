#include "core/error.h"
#include "proto/pre_tokenizer.h"

namespace mla::proto {

struct PreTokenizer::Step {};

PreTokenizer::PreTokenizer(const std::vector<SplitStep>& steps) : steps_(steps.size()) {}
PreTokenizer::~PreTokenizer() = default;
PreTokenizer::PreTokenizer(PreTokenizer&&) noexcept = default;
PreTokenizer& PreTokenizer::operator=(PreTokenizer&&) noexcept = default;

void PreTokenizer::split(std::string_view text,
                         const std::function<void(std::string_view)>& take) const {
  if (!steps_.empty()) {
    throw NotCompiled("text prompts",
                      "a build with PCRE2 (package libpcre2-dev), or prompts as token ids");
  }
  if (!text.empty()) take(text);
}

}  // namespace mla::proto
