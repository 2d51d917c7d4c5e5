#include "launch/bench/sizes.h"

#include <algorithm>
#include <charconv>
#include <optional>

#include "core/error.h"

namespace mla::launch::bench {
namespace {

constexpr std::int64_t kMaxSize = std::int64_t{1} << 40;
constexpr std::string_view kSizesExpected =
    "sizes of 1 to 2^40 such as 16, 4k, 1k..128k*2 or 16..64+16";

/// "16", "4k" or "1m"; nothing for anything else.
std::optional<std::int64_t> read_size(std::string_view text) {
  std::int64_t unit = 1;
  if (text.ends_with('k') || text.ends_with('K')) unit = 1 << 10;
  if (text.ends_with('m') || text.ends_with('M')) unit = 1 << 20;
  if (unit > 1) text.remove_suffix(1);
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  if (value < 1 || value > kMaxSize / unit) return std::nullopt;
  return value * unit;
}

/// A range "first..last*factor" or "first..last+step".
struct SizeRange {
  std::int64_t first = 0;
  std::int64_t last = 0;
  std::int64_t by = 0;
  bool geometric = false;

  /// The value after `value`; nothing if that is above `last`.
  std::optional<std::int64_t> after(std::int64_t value) const {
    if (geometric) return value > last / by ? std::nullopt : std::optional(value * by);
    return value > last - by ? std::nullopt : std::optional(value + by);
  }
};

std::optional<SizeRange> read_range(std::string_view text) {
  const std::size_t dots = text.find("..");
  const std::size_t sign = text.find_last_of("*+");
  if (dots == std::string_view::npos || sign == std::string_view::npos || sign < dots + 2) {
    return std::nullopt;
  }
  const auto first = read_size(text.substr(0, dots));
  const auto last = read_size(text.substr(dots + 2, sign - dots - 2));
  const auto by = read_size(text.substr(sign + 1));
  const bool geometric = text[sign] == '*';
  if (!first || !last || !by || *first > *last || (geometric && *by < 2)) return std::nullopt;
  return SizeRange{*first, *last, *by, geometric};
}

void append_range(const SizeRange& range, std::vector<std::int64_t>& sizes) {
  std::optional<std::int64_t> next = range.first;
  while (next && static_cast<std::int64_t>(sizes.size()) <= kMaxListed) {
    sizes.push_back(*next);
    next = range.after(*next);
  }
}

}  // namespace

std::vector<std::string> parse_names(std::string_view field, std::string_view text) {
  std::vector<std::string> names;
  for (std::size_t begin = 0; begin <= text.size();) {
    const std::size_t end = std::min(text.find(',', begin), text.size());
    if (end == begin) {
      throw InvalidArgument(field, "'" + std::string(text) + "'", "a comma-separated list");
    }
    names.emplace_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return names;
}

std::vector<std::int64_t> parse_sizes(std::string_view field, std::string_view text) {
  std::vector<std::int64_t> sizes;
  for (const std::string& item : parse_names(field, text)) {
    if (const auto size = read_size(item)) {
      sizes.push_back(*size);
    } else if (const auto range = read_range(item)) {
      append_range(*range, sizes);
    } else {
      throw InvalidArgument(field, "'" + item + "'", kSizesExpected);
    }
    if (static_cast<std::int64_t>(sizes.size()) > kMaxListed) {
      throw InvalidArgument(field, "'" + item + "'",
                            "at most " + std::to_string(kMaxListed) + " values in all");
    }
  }
  return sizes;
}

std::int64_t parse_size(std::string_view field, std::string_view text, std::int64_t most) {
  const auto size = read_size(text);
  if (!size || *size > most) {
    throw InvalidArgument(field, "'" + std::string(text) + "'",
                          "one size of 1 to " + std::to_string(most));
  }
  return *size;
}

std::vector<RowShape> parse_shapes(std::string_view field, std::string_view text) {
  constexpr std::int64_t kMaxRowElements = 1 << 16;
  std::vector<RowShape> shapes;
  for (const std::string& item : parse_names(field, text)) {
    const std::string_view view = item;
    const std::size_t slash = std::min(view.find('/'), view.size());
    const auto d_qk = read_size(view.substr(0, slash));
    const auto d_v = read_size(view.substr(std::min(slash + 1, view.size())));
    if (!d_qk || !d_v || *d_qk > kMaxRowElements || *d_v % 16 != 0 || *d_qk < *d_v ||
        (*d_qk - *d_v) % 8 != 0) {
      throw InvalidArgument(field, "'" + item + "'",
                            "d_qk/d_v such as 576/512: d_v a multiple of 16, d_qk that plus a "
                            "multiple of 8");
    }
    shapes.push_back({*d_qk, *d_v});
  }
  return shapes;
}

std::vector<DType> parse_dtypes(std::string_view field, std::string_view text) {
  std::vector<DType> dtypes;
  for (const std::string& item : parse_names(field, text)) {
    if (item != "bf16" && item != "fp16") {
      throw InvalidArgument(field, "'" + item + "'", "bf16 or fp16");
    }
    dtypes.push_back(item == "bf16" ? DType::kBf16 : DType::kFp16);
  }
  return dtypes;
}

}  // namespace mla::launch::bench
