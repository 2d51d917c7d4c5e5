#include "launch/bench/report.h"

#include <algorithm>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

namespace mla::launch::bench {
namespace {

using testing::HasSubstr;

Row some_row() {
  Row row;
  row.point = {.shape = {576, 512}, .heads = 16, .batch = 2, .context_len = 1000};
  row.name = "abacus";
  row.timing = {{0.002, 0.001, 0.004}};
  row.roofline = Roofline{.compute_seconds = 0.001, .memory_seconds = 0.0005};
  row.check.pass = true;
  return row;
}

std::string text_of(const std::string& format, const Row& row) {
  std::string text;
  const auto report = make_report(format, true, [&](const std::string& part) { text += part; });
  report->begin({{"cpu", "an abacus"}}, {});
  report->add(row);
  report->end({"one was left out"});
  return text;
}

TEST(Report, SaysTheSameInEveryForm) {
  for (const char* format : {"table", "markdown", "csv", "json"}) {
    const std::string text = text_of(format, some_row());
    for (const char* word : {"an abacus", "one was left out", "576", "512", "right", "flops"}) {
      EXPECT_THAT(text, HasSubstr(word)) << format;
    }
  }
}

TEST(Report, GivesRatesOfTheMedian) {
  const auto json = nlohmann::json::parse(text_of("json", some_row()));
  const auto& row = json["rows"][0];
  EXPECT_DOUBLE_EQ(row["gflops"], 2.0 * 2 * 16 * 1000 * 1088 / 0.002 / 1e9);
  EXPECT_DOUBLE_EQ(row["kv_gbytes"], 2.0 * 1000 * 576 * 2 / 0.002 / 1e9);
  EXPECT_DOUBLE_EQ(row["of_limit"], 0.5);
  EXPECT_EQ(row["binds"], "flops");
  EXPECT_TRUE(row["ours_faster"].is_null());
  EXPECT_EQ(row["seconds"].size(), 3U);
}

TEST(Report, ShowsSmallAndLargeFiguresInTheirUnits) {
  Row row = some_row();
  EXPECT_THAT(text_of("table", row), HasSubstr("2.000 ms"));
  EXPECT_THAT(text_of("table", row), HasSubstr("34.82 G"));
  row.timing = {{2.223e-5}};
  EXPECT_THAT(text_of("table", row), HasSubstr("22.23 us"));
  EXPECT_THAT(text_of("table", row), HasSubstr("3.132 T"));
}

TEST(Report, TellsAMeanFromALength) {
  Row row = some_row();
  set_lengths(row.point, {1000, 500});
  EXPECT_THAT(text_of("table", row), HasSubstr("~750"));
  EXPECT_EQ(nlohmann::json::parse(text_of("json", row))["rows"][0]["seqlens"][1], 500);
}

TEST(Report, ShowsAWrongResult) {
  Row row = some_row();
  row.check.pass = false;
  for (const char* format : {"table", "markdown", "csv", "json"}) {
    EXPECT_THAT(text_of(format, row), HasSubstr("WRONG")) << format;
  }
}

TEST(Report, AsCsvHasAsManyCellsAsTitles) {
  Row row = some_row();
  row.roofline.reset();
  std::vector<std::ptrdiff_t> commas;
  std::string line;
  for (const char c : text_of("csv", row)) {
    if (c != '\n') {
      line += c;
      continue;
    }
    if (!line.starts_with('#')) commas.push_back(std::count(line.begin(), line.end(), ','));
    line.clear();
  }
  ASSERT_EQ(commas.size(), 2U);
  EXPECT_EQ(commas[0], commas[1]);
}

}  // namespace
}  // namespace mla::launch::bench
