// The demo batch gives the same bytes, within tolerance of what is expected, however it is dealt
// out.

#include <algorithm>
#include <cstdlib>
#include <string>

#include <gtest/gtest.h>

#include "kernels/backend.h"
#include "tests/launch/run_command.h"

namespace mla::launch {
namespace {

const std::string kDemo = std::string(MLA_SOURCE_DIR) + "/launch/demo/shakespeare";

std::string grid_for(int ranks) {
  return ranks == 4 ? "grid:2x2" : "grid:1x" + std::to_string(ranks);
}

std::vector<std::string> available_backends() {
  std::vector<std::string> names;
  for (const kernels::Backend* backend : kernels::backends()) {
    if (backend->why_unavailable().empty()) names.emplace_back(backend->name());
  }
  return names;
}

class DemoBits : public testing::TestWithParam<std::string> {};

/// Every number of ranks with every mode for the backend that is taken if none is named; for the
/// others, and without MLA_FULL_GRID, a mode for each number of ranks.
std::vector<std::string> modes_for(int ranks, const std::string& backend) {
  const std::vector<std::string> all{"heads", "kv", grid_for(ranks), "batch", "auto"};
  if (std::getenv("MLA_FULL_GRID") != nullptr || backend == available_backends().front())
    return all;
  return {all[ranks % all.size()]};
}

/// Either number, taking turns; both with MLA_FULL_GRID.
std::vector<int> threads_for(std::size_t turn) {
  if (std::getenv("MLA_FULL_GRID") != nullptr) return {1, 2};
  return {1 + static_cast<int>(turn % 2)};
}

TEST_P(DemoBits, AreTheSameForAnyRanksModesAndThreads) {
  const std::string backend = GetParam();
  const TemporaryFolder folder;
  std::string first;
  std::size_t turn = 0;
  for (const int ranks : {1, 2, 3, 4, 5, 7}) {
    for (const std::string& mode : modes_for(ranks, backend)) {
      for (const int threads : threads_for(turn++)) {
        SCOPED_TRACE(backend + ", " + std::to_string(ranks) + " ranks, " + mode + ", " +
                     std::to_string(threads) + " threads");
        const std::string output = folder / "results";
        const CommandResult run = run_meshmla(
            ranks, "decode " + kDemo + ".batch.txtpb --output " + output + " --quiet --backend " +
                       backend + " --mode " + mode + " --threads " + std::to_string(threads));
        ASSERT_EQ(run.exit_code, 0) << testing::PrintToString(run.errors);
        const std::string bytes = read_text(output);
        if (first.empty()) {
          first = bytes;
          const CommandResult verify =
              run_meshmla(0, "verify " + kDemo + ".batch.txtpb " + output + " --expected " + kDemo +
                                 ".expected.safetensors");
          EXPECT_EQ(verify.exit_code, 0) << verify.output;
        }
        ASSERT_EQ(bytes, first);
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Backends, DemoBits, testing::ValuesIn(available_backends()),
                         [](const auto& test) {
                           std::string name = test.param;  // GoogleTest allows no hyphens
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

}  // namespace
}  // namespace mla::launch
