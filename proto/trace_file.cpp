#include "proto/trace_file.h"

#include <charconv>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <optional>
#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

#include "core/error.h"
#include "proto/file_io.h"

namespace mla::proto {
namespace {

using nlohmann::json;

constexpr std::size_t kMaxFileBytes = std::size_t{1} << 30;
constexpr std::size_t kMaxEntries = 10'000'000;
constexpr std::int64_t kMaxTokens = std::int64_t{1} << 40;
constexpr std::string_view kAzureHeader = "TIMESTAMP,ContextTokens,GeneratedTokens";

/// Walks over the lines of a text; empty ones are skipped.
class Lines {
 public:
  Lines(std::string_view text, std::string name) : rest_(text), name_(std::move(name)) {}

  std::optional<std::string_view> next() {
    while (!rest_.empty()) {
      const std::size_t end = rest_.find('\n');
      std::string_view line = rest_.substr(0, end);
      rest_ = end == std::string_view::npos ? std::string_view() : rest_.substr(end + 1);
      ++number_;
      if (line.ends_with('\r')) line.remove_suffix(1);
      if (!line.empty()) return line;
    }
    return std::nullopt;
  }

  /// "trace 'x.csv': line 7".
  std::string place() const { return name_ + ": line " + std::to_string(number_); }

 private:
  std::string_view rest_;
  std::string name_;
  std::int64_t number_ = 0;
};

void check_tokens(std::int64_t tokens, const std::string& field) {
  if (tokens < 0 || tokens > kMaxTokens) {
    throw FormatError(field, std::to_string(tokens), "0 to 2^40 tokens");
  }
}

std::int64_t integer_member(const json& entry, const char* key, const std::string& place) {
  const auto found = entry.find(key);
  if (found == entry.end() || !found->is_number()) {
    throw FormatError(place, std::string("no number '") + key + "'", "one");
  }
  // Some traces have fractional timestamps.
  const double value = found->get<double>();
  if (!(std::abs(value) < 0x1p62)) {
    throw FormatError(place + ": " + key, found->dump(), "a number below 2^62");
  }
  return found->is_number_integer() ? found->get<std::int64_t>()
                                    : static_cast<std::int64_t>(std::floor(value));
}

TraceEntry parse_mooncake(std::string_view line, const std::string& place) {
  const json entry = json::parse(line, nullptr, false);
  if (!entry.is_object()) throw FormatError(place, "no JSON object", "a JSON object per line");
  TraceEntry result{.timestamp_ms = integer_member(entry, "timestamp", place),
                    .input_length = integer_member(entry, "input_length", place),
                    .output_length = integer_member(entry, "output_length", place),
                    .hash_ids = {}};
  const auto hash_ids = entry.find("hash_ids");
  if (hash_ids == entry.end()) return result;
  if (!hash_ids->is_array()) throw FormatError(place + ": hash_ids", "no array", "an array");
  for (const json& id : *hash_ids) {
    if (!id.is_number_integer()) {
      throw FormatError(place + ": hash_ids", id.dump(), "an array of integers");
    }
    result.hash_ids.push_back(id.get<std::int64_t>());
  }
  return result;
}

std::int64_t parse_tokens(std::string_view text, const std::string& field) {
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size()) {
    throw FormatError(field, "'" + std::string(text) + "'", "an integer");
  }
  return value;
}

/// "2023-11-16 18:15:46.6805900" as milliseconds since 1970.
std::int64_t parse_time(const std::string& text, const std::string& field) {
  int year = 0;
  int month = 0;
  int day = 0;
  int hour = 0;
  int minute = 0;
  double second = 0;
  const int fields = std::sscanf(text.c_str(), "%4d-%2d-%2d%*[ T]%2d:%2d:%lf", &year, &month, &day,
                                 &hour, &minute, &second);
  const std::chrono::year_month_day date{std::chrono::year(year),
                                         std::chrono::month(static_cast<unsigned>(month)),
                                         std::chrono::day(static_cast<unsigned>(day))};
  const bool sane = fields == 6 && date.ok() && hour >= 0 && hour < 24 && minute >= 0 &&
                    minute < 60 && second >= 0 && second < 61;
  if (!sane) throw FormatError(field, "'" + text + "'", "a time like 2023-11-16 18:15:46.68");
  const std::int64_t days = std::chrono::sys_days(date).time_since_epoch().count();
  return ((days * 24 + hour) * 60 + minute) * 60'000 +
         static_cast<std::int64_t>(std::floor(second * 1000));
}

TraceEntry parse_azure(std::string_view line, const std::string& place) {
  const std::size_t first = line.find(',');
  const std::size_t second = first == std::string_view::npos ? first : line.find(',', first + 1);
  if (second == std::string_view::npos) {
    throw FormatError(place, "fewer than 3 fields", std::string(kAzureHeader));
  }
  return {.timestamp_ms = parse_time(std::string(line.substr(0, first)), place + ": TIMESTAMP"),
          .input_length =
              parse_tokens(line.substr(first + 1, second - first - 1), place + ": ContextTokens"),
          .output_length = parse_tokens(line.substr(second + 1), place + ": GeneratedTokens"),
          .hash_ids = {}};
}

bool is_mooncake(const std::filesystem::path& path, std::string_view text) {
  if (path.extension() == ".csv") return false;
  return path.extension() == ".jsonl" || text.starts_with('{');
}

}  // namespace

std::vector<TraceEntry> read_trace(const std::filesystem::path& path) {
  const MappedFile file(path, kMaxFileBytes);
  const std::string name = "trace '" + path.string() + "'";
  const std::string_view text = file.text();
  const bool mooncake = is_mooncake(path, text);
  Lines lines(text, name);
  if (!mooncake) {
    const auto header = lines.next();
    if (header != kAzureHeader) {
      throw FormatError(name, "another beginning",
                        "the header " + std::string(kAzureHeader) + ", or JSON lines");
    }
  }
  std::vector<TraceEntry> entries;
  while (const auto line = lines.next()) {
    if (entries.size() == kMaxEntries) {
      throw FormatError(name, "more entries", "at most " + std::to_string(kMaxEntries));
    }
    entries.push_back(mooncake ? parse_mooncake(*line, lines.place())
                               : parse_azure(*line, lines.place()));
    check_tokens(entries.back().input_length, lines.place() + ": input length");
    check_tokens(entries.back().output_length, lines.place() + ": output length");
  }
  if (entries.empty()) throw FormatError(name, "no entries", "at least one");
  const std::int64_t start = entries.front().timestamp_ms;
  for (TraceEntry& entry : entries) entry.timestamp_ms -= start;
  return entries;
}

}  // namespace mla::proto
