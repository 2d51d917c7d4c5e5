#include "proto/trace_file.h"

#include <charconv>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <string>
#include <string_view>

#include "core/error.h"
#include "proto/file_io.h"
#include "proto/json_reader.h"
#include "proto/text_lines.h"

namespace mla::proto {
namespace {

constexpr std::size_t kMaxTraceBytes = std::size_t{1} << 30;
constexpr std::size_t kMaxEntries = 10'000'000;
constexpr int kTraceDepth = 4;
constexpr std::int64_t kMaxTraceTokens = std::int64_t{1} << 40;
constexpr std::string_view kAzureHeader = "TIMESTAMP,ContextTokens,GeneratedTokens";

void check_tokens(std::int64_t tokens, const std::string& field) {
  if (tokens < 0 || tokens > kMaxTraceTokens) {
    throw FormatError(field, std::to_string(tokens), "0 to 2^40 tokens");
  }
}

TraceEntry parse_mooncake(std::string_view line, const std::string& place) {
  const nlohmann::json parsed = parse_json(line, place, kTraceDepth);
  const JsonField entry(parsed, place + ": request");
  const auto whole = [&](const char* key) {
    const JsonField field = entry.at(key);
    const double value = std::floor(field.number());  // some traces have fractional timestamps
    if (!(std::abs(value) < 0x1p62)) field.expected("a number below 2^62");
    return static_cast<std::int64_t>(value);
  };
  TraceEntry result{.timestamp_ms = whole("timestamp"),
                    .input_length = whole("input_length"),
                    .output_length = whole("output_length"),
                    .hash_ids = {}};
  const JsonField ids = entry.at("hash_ids");
  if (ids.is_null()) return result;
  result.hash_ids.reserve(ids.size());
  for (const nlohmann::json& id : ids.value()) {
    // A name for each of millions of elements would take longer than reading them.
    result.hash_ids.push_back(JsonField(id, ids.name()).integer(INT64_MIN, INT64_MAX));
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
  const MappedFile file(path, kMaxTraceBytes);
  const std::string name = "trace '" + path.string() + "'";
  const std::string_view text = file.text();
  const bool mooncake = is_mooncake(path, text);
  TextLines lines(text);
  const auto place = [&] { return name + ": line " + std::to_string(lines.number()); };
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
    entries.push_back(mooncake ? parse_mooncake(*line, place()) : parse_azure(*line, place()));
    check_tokens(entries.back().input_length, place() + ": input length");
    check_tokens(entries.back().output_length, place() + ": output length");
  }
  if (entries.empty()) throw FormatError(name, "no entries", "at least one");
  const std::int64_t start = entries.front().timestamp_ms;
  for (TraceEntry& entry : entries) entry.timestamp_ms -= start;
  return entries;
}

}  // namespace mla::proto
