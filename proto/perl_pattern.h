#pragma once

#include <string>
#include <string_view>

namespace mla::proto {

/// A regular expression of Oniguruma, as tokenizer.json has them, written in Perl's syntax with
/// Unicode properties. `name` is what errors call it. @throws Unsupported for what the two
/// understand differently.
std::string perl_pattern(std::string_view pattern, std::string_view name);

/// The pattern (for `perl_pattern`, too) that matches `text` alone.
std::string quoted_pattern(std::string_view text);

}  // namespace mla::proto
