#include "launch/bench/report.h"

#include <algorithm>
#include <iterator>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

namespace mla::launch::bench {
namespace {

using Json = nlohmann::ordered_json;

/// How a table shows one of a row's values: its key, title and width, and its text.
struct Column {
  const char* key;
  const char* title;
  int width;
  std::string (*text)(const Json&);
};

std::string plain(const Json& value) {
  return value.is_string() ? value.get<std::string>() : value.dump();
}

std::string gbytes(const Json& value) {
  return fmt::format("{:#.4g}", value.get<double>());
}

/// Four digits and the prefix that fits: "22.31 us" of (2.231e-5, "s").
std::string with_prefix(double value, std::string_view unit) {
  constexpr struct {
    double factor;
    const char* name;
  } kPrefixes[] = {{1e12, "T"}, {1e9, "G"},  {1e6, "M"}, {1e3, "k"},
                   {1, ""},     {1e-3, "m"}, {1e-6, "u"}};
  for (const auto& prefix : kPrefixes) {
    if (value >= prefix.factor || prefix.factor == 1e-6) {
      return fmt::format("{:#.4g} {}{}", value / prefix.factor, prefix.name, unit);
    }
  }
  return {};
}

std::string seconds(const Json& value) {
  return with_prefix(value.get<double>(), "s");
}

std::string flops(const Json& value) {
  return with_prefix(1e9 * value.get<double>(), "");
}

std::string percent(const Json& value) {
  return fmt::format("{:.0f}%", 100 * value.get<double>());
}

std::string times(const Json& value) {
  return fmt::format("{:.2f}x", value.get<double>());
}

Json optional(const std::optional<double>& value) {
  return value ? Json(*value) : Json(nullptr);
}

/// What files hold of a row, in their order.
Json values_of(const Row& r) {
  const Point& p = r.point;
  Json binds;
  if (r.roofline) binds = r.roofline->compute_binds() ? "flops" : "bytes";
  return {{"name", r.name},
          {"dtype", name_of(p.dtype)},
          {"d_qk", p.shape.d_qk},
          {"d_v", p.shape.d_v},
          {"heads", p.heads},
          {"s_q", p.query_len},
          {"batch", p.batch},
          // A mean is told from a length.
          {"seqlen", p.varied() ? Json(fmt::format("~{}", p.context_len)) : Json(p.context_len)},
          {"threads", r.on_gpu ? Json() : Json(p.threads)},
          {"repeats", r.timing.seconds.size()},
          {"median_s", r.timing.median()},
          {"min_s", r.timing.min()},
          {"max_s", r.timing.max()},
          {"gflops", r.gflops()},
          {"kv_gbytes", r.kv_gbytes()},
          {"of_limit", optional(r.of_limit())},
          {"binds", binds},
          {"ours_faster", optional(r.speedup)},
          {"check", r.check.pass ? "right" : "WRONG: " + kernels::to_string(r.check)}};
}

constexpr Column kColumns[] = {
    {"name", "name", 12, plain},         {"dtype", "dtype", 5, plain},
    {"d_qk", "d_qk", 4, plain},          {"d_v", "d_v", 4, plain},
    {"heads", "heads", 5, plain},        {"s_q", "s_q", 3, plain},
    {"batch", "batch", 5, plain},        {"seqlen", "seqlen", 7, plain},
    {"threads", "threads", 7, plain},    {"repeats", "repeats", 7, plain},
    {"median_s", "time", 9, seconds},    {"min_s", "min", 9, seconds},
    {"max_s", "max", 9, seconds},        {"gflops", "FLOP/s", 8, flops},
    {"kv_gbytes", "KV GB/s", 7, gbytes}, {"of_limit", "limit", 5, percent},
    {"binds", "by", 5, plain},           {"ours_faster", "ours is", 8, times},
    {"check", "check", 5, plain}};

std::string limits_lines(const Limits& limits, const char* begin) {
  std::string text;
  for (const MemoryLimit& m : limits.memory) {
    text += fmt::format("{}reads: {:.1f} GB/s on {} thread(s)\n", begin, 1e-9 * m.bytes_per_second,
                        m.threads);
  }
  for (const ProductLimit& p : limits.products) {
    text += fmt::format("{}{} {}: {:.0f} GFLOP/s of {} on {} thread(s)\n", begin, p.backend->name(),
                        name_of(p.dtype), 1e-9 * p.flops_per_second,
                        p.backend->product_instruction(p.dtype), p.threads);
  }
  for (const DeviceLimit& d : limits.devices) {
    text += fmt::format("{}{} {}: {} of {}, reads {:.0f} GB/s\n", begin, d.backend->name(),
                        name_of(d.dtype), with_prefix(d.flops_per_second, "FLOP/s"), d.instruction,
                        1e-9 * d.bytes_per_second);
  }
  return text;
}

std::string header_lines(const Header& header, const char* begin) {
  std::string text;
  for (const auto& [key, value] : header) text += fmt::format("{}{}: {}\n", begin, key, value);
  return text;
}

std::string note_lines(const std::vector<std::string>& notes, const char* begin) {
  std::string text;
  for (const std::string& note : notes) text += fmt::format("{}{}\n", begin, note);
  return text;
}

/// Rows of cells, with or without a frame.
class TableReport final : public Report {
 public:
  struct Style {
    const char* line;     // before each line of the header and the notes
    const char* between;  // cells
    const char* first;    // before the first cell of a row
    const char* last;     // after the last
    bool rule;            // under the titles
  };

  TableReport(Style style, bool compared, Sink sink) : Report(std::move(sink)), style_(style) {
    std::ranges::copy_if(kColumns, std::back_inserter(columns_),
                         [&](const Column& column) { return compared || column.text != times; });
  }

  void begin(const Header& header, const Limits& limits) override {
    std::vector<std::string> titles;
    std::vector<std::string> rules;
    for (const Column& column : columns_) {
      titles.push_back(fmt::format("{:>{}}", column.title, column.width));
      rules.push_back(std::string(column.width - 1, '-') + ":");
    }
    write(header_lines(header, style_.line) + limits_lines(limits, style_.line) + "\n" +
          line_of(titles) + (style_.rule ? line_of(rules) : ""));
  }

  void add(const Row& row) override {
    const Json values = values_of(row);
    std::vector<std::string> cells;
    for (const Column& column : columns_) {
      const Json& value = values[column.key];
      const std::string text = value.is_null() ? "-" : column.text(value);
      cells.push_back(fmt::format("{:>{}}", text, column.width));
    }
    write(line_of(cells));
  }

  void end(const std::vector<std::string>& notes) override {
    if (!notes.empty()) write(fmt::format("\n{}", note_lines(notes, style_.line)));
  }

 private:
  std::string line_of(const std::vector<std::string>& cells) const {
    return style_.first + fmt::format("{}", fmt::join(cells, style_.between)) + style_.last + "\n";
  }

  Style style_;
  std::vector<Column> columns_;
};

/// Titles, then values at full precision; what is not a row begins with '#'.
class CsvReport final : public Report {
 public:
  using Report::Report;

  void begin(const Header& header, const Limits& limits) override {
    std::vector<std::string> keys;
    for (const Column& column : kColumns) keys.emplace_back(column.key);
    write(header_lines(header, "# ") + limits_lines(limits, "# ") +
          fmt::format("{}\n", fmt::join(keys, ",")));
  }

  void add(const Row& row) override {
    std::vector<std::string> cells;
    for (const Json& value : values_of(row)) {
      const std::string text = value.is_null() ? "" : plain(value);
      cells.push_back(text.find(',') == std::string::npos ? text : '"' + text + '"');
    }
    write(fmt::format("{}\n", fmt::join(cells, ",")));
  }

  void end(const std::vector<std::string>& notes) override { write(note_lines(notes, "# ")); }
};

/// One object, written at the end.
class JsonReport final : public Report {
 public:
  using Report::Report;

  void begin(const Header& header, const Limits& limits) override {
    for (const auto& [key, value] : header) json_["header"][key] = value;
    json_["limits"] = {{"reads", Json::array()}, {"products", Json::array()}};
    for (const MemoryLimit& m : limits.memory) {
      json_["limits"]["reads"].push_back(
          {{"threads", m.threads}, {"gbytes", 1e-9 * m.bytes_per_second}});
    }
    for (const ProductLimit& p : limits.products) {
      json_["limits"]["products"].push_back(
          {{"backend", p.backend->name()},
           {"dtype", name_of(p.dtype)},
           {"instruction", p.backend->product_instruction(p.dtype)},
           {"threads", p.threads},
           {"gflops", 1e-9 * p.flops_per_second}});
    }
    json_["limits"]["gpus"] = Json::array();
    for (const DeviceLimit& d : limits.devices) {
      json_["limits"]["gpus"].push_back({{"backend", d.backend->name()},
                                         {"dtype", name_of(d.dtype)},
                                         {"instruction", d.instruction},
                                         {"gflops", 1e-9 * d.flops_per_second},
                                         {"gbytes", 1e-9 * d.bytes_per_second}});
    }
    json_["rows"] = Json::array();
  }

  void add(const Row& row) override {
    Json& object = json_["rows"].emplace_back(values_of(row));
    object["page"] = row.point.page_block_size;
    object["chunk"] = row.point.chunk_tokens;
    if (row.point.varied()) object["seqlens"] = row.point.context_lens;
    object["seconds"] = row.timing.seconds;
  }

  void end(const std::vector<std::string>& notes) override {
    json_["notes"] = notes;
    write(json_.dump(2) + "\n");
  }

 private:
  Json json_;
};

}  // namespace

std::optional<double> Row::of_limit() const {
  if (!roofline) return std::nullopt;
  return roofline->seconds() / timing.median();
}

std::unique_ptr<Report> make_report(const std::string& format, bool compared, Report::Sink sink) {
  if (format == "csv") return std::make_unique<CsvReport>(std::move(sink));
  if (format == "json") return std::make_unique<JsonReport>(std::move(sink));
  const TableReport::Style style = format == "markdown"
                                       ? TableReport::Style{"- ", " | ", "| ", " |", true}
                                       : TableReport::Style{"", " ", "", "", false};
  return std::make_unique<TableReport>(style, compared, std::move(sink));
}

}  // namespace mla::launch::bench
