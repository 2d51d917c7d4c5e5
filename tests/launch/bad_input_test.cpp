// Every wrong input ends in one exact line and its exit code, on any number of ranks, and leaves
// nothing at the output path.

#include "tests/launch/bad_input.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace mla::launch {

void PrintTo(const BadInputCase& c, std::ostream* out) {
  *out << c.name;
}

namespace {

#ifdef __SANITIZE_ADDRESS__
constexpr bool kSanitized = true;
#else
constexpr bool kSanitized = false;
#endif

/// 0, for no mpirun, and one number of ranks, a different one from case to case; all of them when
/// MLA_FULL_GRID is set. Under the sanitizers, where starting a job takes seconds, the first alone.
std::vector<int> rank_counts(const std::string& case_name) {
  if (std::getenv("MLA_FULL_GRID") != nullptr) return {0, 1, 2, 3, 4, 7};
  constexpr int kCounts[] = {1, 2, 3, 4, 7};
  if (kSanitized) return {0};
  return {0, kCounts[case_name.size() % 5]};
}

/// The line with RANKS put in; without mpirun there is one rank.
std::string with_ranks(std::string line, int ranks) {
  const auto at = line.find("RANKS");
  if (at != std::string::npos) line.replace(at, 5, std::to_string(std::max(1, ranks)));
  return line;
}

class BadInput : public testing::TestWithParam<BadInputCase> {};

TEST_P(BadInput, EndsInOneLineAndItsExitCodeOnAnyNumberOfRanks) {
  const BadInputCase& c = GetParam();
  double slowest = 0;
  for (const int ranks : rank_counts(c.name)) {
    SCOPED_TRACE(ranks == 0 ? "without mpirun" : std::to_string(ranks) + " ranks");
    const Inputs inputs;
    const std::string arguments = c.arguments(inputs);
    const std::vector<std::string> before = inputs.files();
    const CommandResult result = run_meshmla(ranks, arguments);
    EXPECT_EQ(result.exit_code, c.exit_code);
    ASSERT_EQ(result.errors.size(), 1U) << testing::PrintToString(result.errors);
    EXPECT_EQ(inputs.without_folder(result.errors[0]),
              "meshmla: error: " + with_ranks(c.line, ranks));
    EXPECT_EQ(inputs.files(), before);
    slowest = std::max(slowest, result.seconds);
  }
  std::printf("slowest run %.2f s\n", slowest);
}

INSTANTIATE_TEST_SUITE_P(Table, BadInput, testing::ValuesIn(bad_input_cases()),
                         [](const auto& test) { return test.param.name; });

TEST(BadInputTable, HasAGoodBatchToSpoil) {
  const Inputs inputs;
  const CommandResult result =
      run_meshmla(2, "decode " + inputs / "batch.txtpb" + " --output " + inputs / "results");
  EXPECT_EQ(result.exit_code, 0);
  EXPECT_THAT(inputs.files(),
              testing::ElementsAre("batch.txtpb", "results", "results.manifest.json"));
}

}  // namespace
}  // namespace mla::launch
