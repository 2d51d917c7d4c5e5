#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/error.h"
#include "core/partition.h"

namespace mla {
namespace {

using Kind = ShardMode::Kind;

TEST(ShardMode, ReadsWhatItPrints) {
  const std::pair<const char*, ShardMode> cases[] = {{"auto", {Kind::kAuto}},
                                                     {"heads", {Kind::kHeads}},
                                                     {"kv", {Kind::kKv}},
                                                     {"batch", {Kind::kBatch}},
                                                     {"grid:1x12", {Kind::kGrid, 1, 12}},
                                                     {"grid:3x4", {Kind::kGrid, 3, 4}},
                                                     {"grid:12x1", {Kind::kGrid, 12, 1}}};
  for (const auto& [text, mode] : cases) {
    EXPECT_EQ(parse_shard_mode(text, 12), mode) << text;
    EXPECT_EQ(to_string(mode), text);
  }
}

void expect_refused(const char* text, const char* line) {
  try {
    parse_shard_mode(text, 12);
    ADD_FAILURE() << "'" << text << "' was accepted";
  } catch (const InvalidArgument& error) {
    EXPECT_STREQ(error.what(), line);
    EXPECT_EQ(error.exit_code(), ExitCode::kUsage);
  }
}

TEST(ShardMode, RefusesWhatIsNoMode) {
  for (const char* text : {"",
                           "AUTO",
                           "heads ",
                           " kv",
                           "grid",
                           "grid:",
                           "grid:3",
                           "grid:3x",
                           "grid:x4",
                           "grid:3x4x1",
                           "grid:3*4",
                           "grid:3 x4",
                           "grid:3x4 ",
                           "grid:-3x-4",
                           "grid:0x12",
                           "grid:12x0",
                           "grid:+3x4",
                           "grid:3x4.0",
                           "grid:99999999999999999999x1",
                           "tp",
                           "kv4"}) {
    const std::string line =
        std::string("--mode: ") + text + "; expected auto, heads, kv, batch or grid:HxK";
    expect_refused(text, line.c_str());
  }
}

TEST(ShardMode, RefusesGridsThatDoNotFitTheRanks) {
  for (const char* text : {"grid:3x3", "grid:1x1", "grid:13x1", "grid:2x12",
                           "grid:9223372036854775807x2", "grid:4294967296x4294967296"}) {
    const std::string line = std::string("--mode: ") + text +
                             "; expected a grid whose H times K is the number of ranks, 12";
    expect_refused(text, line.c_str());
  }
}

}  // namespace
}  // namespace mla
