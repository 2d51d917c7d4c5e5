#include "core/trace.h"

#include <algorithm>
#include <set>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "proto/trace_file.h"
#include "tests/support/temp_dir.h"

namespace mla::proto {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

std::vector<TraceEntry> parse(const std::string& file, const std::string& text) {
  const TempDir folder;
  write_file(folder / file, text);
  return read_trace(folder / file);
}

constexpr const char* kMooncake =
    "{\"timestamp\": 10, \"input_length\": 1100, \"output_length\": 5, \"hash_ids\": [0, 1, 2]}\n"
    "\n"
    "{\"timestamp\": 12.5, \"input_length\": 600, \"output_length\": 6, \"hash_ids\": [0, 7]}\r\n"
    "{\"timestamp\": 20, \"input_length\": 3, \"output_length\": 7}";

TEST(TraceFile, ReadsMooncake) {
  for (const char* name : {"t.jsonl", "t"}) {
    EXPECT_THAT(parse(name, kMooncake),
                ElementsAre(TraceEntry{0, 1100, 5, {0, 1, 2}}, TraceEntry{2, 600, 6, {0, 7}},
                            TraceEntry{10, 3, 7, {}}));
  }
}

TEST(TraceFile, ReadsAzure) {
  const std::string text =
      "TIMESTAMP,ContextTokens,GeneratedTokens\r\n"
      "2023-11-30 23:59:59.5000000,374,44\r\n"
      "2023-12-01 00:00:01,396,109";
  for (const char* name : {"t.csv", "t"}) {
    EXPECT_THAT(parse(name, text),
                ElementsAre(TraceEntry{0, 374, 44, {}}, TraceEntry{1500, 396, 109, {}}));
  }
}

TEST(TraceFile, NamesTheLineThatIsWrong) {
  const std::string good = "{\"timestamp\":1,\"input_length\":1,\"output_length\":1}\n";
  EXPECT_THAT(error_of([&] { parse("t.jsonl", good + "\n{\"timestamp\":1}"); }),
              HasSubstr("t.jsonl': line 3: request.input_length: missing; expected a number"));
  EXPECT_THAT(error_of([&] { parse("t.jsonl", good + "nonsense"); }), HasSubstr("line 2"));
  EXPECT_THAT(error_of([] {
                parse("t.jsonl", "{\"timestamp\":1,\"input_length\":-1,\"output_length\":1}");
              }),
              HasSubstr("line 1: input length: -1"));
  const std::string header = "TIMESTAMP,ContextTokens,GeneratedTokens\n";
  EXPECT_THAT(error_of([&] { parse("t.csv", header + "2023-11-16 18:15:46,x,44"); }),
              HasSubstr("line 2: ContextTokens: 'x'; expected an integer"));
  EXPECT_THAT(error_of([&] { parse("t.csv", header + "2023-13-16 18:15:46,1,44"); }),
              HasSubstr("line 2: TIMESTAMP"));
  EXPECT_THAT(error_of([&] { parse("t.csv", header + "1,2"); }), HasSubstr("line 2: fewer"));
  EXPECT_THAT(error_of([] { parse("t.csv", "a,b,c\n"); }), HasSubstr("TIMESTAMP,ContextTokens"));
  EXPECT_THAT(error_of([] { parse("t.jsonl", "\n"); }), HasSubstr("no entries"));
}

const std::vector<TraceEntry> kTrace{
    {0, 1100, 5, {0, 1, 2}}, {0, 1600, 5, {0, 1, 2, 3}}, {0, 600, 5, {0, 7}}, {0, 700, 5, {}}};

TraceBatchOptions options_of(std::int64_t page_block_size) {
  TraceBatchOptions options;
  options.requests = 4;
  options.shape = {.h_q = 4, .h_kv = 1, .d_qk = 64, .d_v = 32};
  options.page_block_size = page_block_size;
  options.seed = 5;
  return options;
}

/// Blocks from the first on in which two requests have the same pages.
std::int64_t common_pages(const Batch& batch, std::size_t a, std::size_t b) {
  const auto& x = batch.requests[a].block_table;
  const auto& y = batch.requests[b].block_table;
  return std::mismatch(x.begin(), x.end(), y.begin(), y.end()).first - x.begin();
}

TEST(TraceBatch, IsValidAndUsesEachPageThatItHas) {
  for (const std::int64_t page : {1, 48, 64, 512, 1000}) {
    const Batch batch = batch_from_trace(kTrace, options_of(page));
    ASSERT_NO_THROW(validate(batch, ValidateFor::kDecoding));
    std::set<std::int32_t> used;
    for (std::size_t r = 0; r < 4; ++r) {
      EXPECT_EQ(batch.requests[r].context_len, kTrace[r].input_length);
      EXPECT_EQ(batch.requests[r].custom_id, "trace-" + std::to_string(r));
      const auto& table = batch.requests[r].block_table;
      EXPECT_EQ(std::set(table.begin(), table.end()).size(), table.size());
      used.insert(table.begin(), table.end());
    }
    EXPECT_EQ(static_cast<std::int64_t>(used.size()), batch.num_pages);
  }
}

TEST(TraceBatch, SharesWholePagesOfEqualBlocks) {
  const Batch batch = batch_from_trace(kTrace, options_of(64));
  EXPECT_EQ(common_pages(batch, 0, 1), 17);  // 1100 tokens fill 17 pages; the last is not shared
  EXPECT_EQ(common_pages(batch, 0, 2), 8);
  EXPECT_EQ(common_pages(batch, 0, 3), 0);
  EXPECT_EQ(batch.num_pages, 18 + (25 - 17) + (10 - 8) + 11);
}

TEST(TraceBatch, SharesAPageThatStraddlesBlocksOnlyIfAllAreEqual) {
  const Batch narrow = batch_from_trace(kTrace, options_of(48));
  EXPECT_EQ(common_pages(narrow, 0, 2), 10);  // page 10 holds tokens 480 to 528 of blocks 0 and 1
  EXPECT_EQ(common_pages(narrow, 0, 1), 22);
  const Batch wide = batch_from_trace(kTrace, options_of(1000));
  EXPECT_EQ(common_pages(wide, 0, 1), 1);
  EXPECT_EQ(common_pages(wide, 0, 2), 0);
}

TEST(TraceBatch, ScattersPagesBySeed) {
  const Batch batch = batch_from_trace(kTrace, options_of(1));
  const auto& table = batch.requests[0].block_table;
  std::int64_t neighbours = 0;
  for (std::size_t i = 1; i < table.size(); ++i) neighbours += table[i] == table[i - 1] + 1;
  EXPECT_LT(neighbours, 10);
  EXPECT_EQ(batch, batch_from_trace(kTrace, options_of(1)));
  TraceBatchOptions other = options_of(1);
  other.seed = 6;
  EXPECT_NE(batch.requests[0].block_table, batch_from_trace(kTrace, other).requests[0].block_table);
}

TEST(TraceBatch, MayHoldLengthsOnly) {
  TraceBatchOptions options = options_of(64);
  options.lengths_only = true;
  const Batch batch = batch_from_trace(kTrace, options);
  EXPECT_NO_THROW(validate(batch, ValidateFor::kPlanning));
  EXPECT_EQ(batch.num_pages, 0);
  EXPECT_TRUE(batch.requests[0].block_table.empty());
  EXPECT_EQ(batch.kv_cache.kind, TensorSource::Kind::kNone);
}

TEST(TraceBatch, TakesEntriesInOrderOrAtRandom) {
  const std::vector<TraceEntry> trace(100, TraceEntry{0, 64, 1, {}});
  TraceBatchOptions options = options_of(64);
  options.first = 90;
  EXPECT_EQ(batch_from_trace(trace, options).requests[3].custom_id, "trace-93");
  options.first = 10;
  options.requests = 90;
  options.sample = true;
  EXPECT_EQ(batch_from_trace(trace, options).requests[89].custom_id, "trace-99");
  options.requests = 5;
  const Batch batch = batch_from_trace(trace, options);
  EXPECT_NE(batch.requests[4].custom_id, "trace-14");
  EXPECT_NO_THROW(validate(batch, ValidateFor::kDecoding));
  options.requests = 91;
  EXPECT_THAT(error_of([&] { batch_from_trace(trace, options); }),
              HasSubstr("requests: 91; expected at most 90"));
}

TEST(TraceBatch, ReadsTheMooncakeTrace) {
  const std::filesystem::path path =
      std::filesystem::path(MLA_SHARED_DIR) / "traces/mooncake_conversation.jsonl";
  if (!std::filesystem::exists(path)) GTEST_SKIP() << "no " << path;
  const std::vector<TraceEntry> trace = read_trace(path);
  ASSERT_EQ(trace.size(), 12031u);
  EXPECT_EQ(
      std::max_element(trace.begin(), trace.end(),
                       [](const auto& a, const auto& b) { return a.input_length < b.input_length; })
          ->input_length,
      126195);
  TraceBatchOptions options;
  options.requests = 64;
  const Batch batch = batch_from_trace(trace, options);
  EXPECT_NO_THROW(validate(batch, ValidateFor::kDecoding));
  std::int64_t blocks = 0;
  for (const Request& request : batch.requests) blocks += batch.num_blocks(request);
  EXPECT_LT(batch.num_pages, blocks);  // all begin with block 0
}

TEST(TraceBatch, ReadsTheAzureTrace) {
  const std::filesystem::path path =
      std::filesystem::path(MLA_SHARED_DIR) / "traces/azure_conv_2023.csv";
  if (!std::filesystem::exists(path)) GTEST_SKIP() << "no " << path;
  const std::vector<TraceEntry> trace = read_trace(path);
  EXPECT_EQ(trace.size(), 19366u);
  EXPECT_TRUE(std::is_sorted(trace.begin(), trace.end(), [](const auto& a, const auto& b) {
    return a.timestamp_ms < b.timestamp_ms;
  }));
}

}  // namespace
}  // namespace mla::proto
