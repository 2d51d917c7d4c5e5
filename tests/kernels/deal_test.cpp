#include "kernels/cuda/deal.h"

#include <algorithm>

#include <gtest/gtest.h>

#ifdef MLA_HAVE_RAPIDCHECK
#include <rapidcheck.h>
#include <rapidcheck/gtest.h>
#endif

namespace mla::kernels::cuda {
namespace {

constexpr DealCosts kCosts;

double busiest(std::span<const Run> runs, std::span<const std::int64_t> tiles, int teams) {
  std::vector<double> loads(teams, 0);
  for (const Run& run : runs) {
    const bool cut = run.tiles != Range{0, tiles[run.unit]};
    loads[run.team] += kCosts.part + double(run.tiles.size()) + (cut ? kCosts.merge : 0);
  }
  return *std::max_element(loads.begin(), loads.end());
}

TEST(DealRuns, GivesNobodyMuchMoreThanItsShare) {
  const std::vector<std::int64_t> tiles{64, 705, 28, 27};
  const auto runs = deal_runs(tiles, 132);
  EXPECT_LE(busiest(runs, tiles, 132), 824.0 / 132 + 2 + 2 * kCosts.part + 2 * kCosts.merge);
}

#ifdef MLA_HAVE_RAPIDCHECK

RC_GTEST_PROP(DealRuns, CoversEveryTileOnceAndBalances, ()) {
  const auto tiles = *rc::gen::container<std::vector<std::int64_t>>(
      *rc::gen::inRange(0, 40), rc::gen::inRange<std::int64_t>(0, 300));
  const int teams = *rc::gen::inRange(1, 150);
  const auto runs = deal_runs(tiles, teams);
  std::vector<std::int64_t> at(tiles.size(), 0);
  std::vector<std::int64_t> begun(tiles.size(), 0);
  double all = 0;
  for (const Run& run : runs) {
    RC_ASSERT(run.tiles.begin == at[run.unit]);
    at[run.unit] = run.tiles.end;
    ++begun[run.unit];
    all += double(run.tiles.size()) + kCosts.part;
  }
  RC_ASSERT(at == tiles);
  for (const std::int64_t times : begun) RC_ASSERT(times > 0);
  const double overheads = 1 + 3 * kCosts.part + 4 * kCosts.merge;
  if (!runs.empty()) RC_ASSERT(busiest(runs, tiles, teams) <= 1.03 * (all / teams + overheads));
}

RC_GTEST_PROP(DealInOrder, AscendsAndBalances, ()) {
  const auto costs = *rc::gen::container<std::vector<double>>(
      *rc::gen::inRange(0, 300),
      rc::gen::map(rc::gen::inRange(1, 9), [](int c) { return c + 0.3; }));
  const int teams = *rc::gen::inRange(1, 150);
  const std::vector<int> team_of = deal_in_order(costs, teams);
  std::vector<double> loads(teams, 0);
  double all = 0;
  for (std::size_t i = 0; i < costs.size(); ++i) {
    RC_ASSERT(team_of[i] < teams && team_of[i] >= (i == 0 ? 0 : team_of[i - 1]));
    loads[team_of[i]] += costs[i];
    all += costs[i];
  }
  RC_ASSERT(*std::max_element(loads.begin(), loads.end()) <= all / teams + 8.3 + 0.1);
}

#endif

}  // namespace
}  // namespace mla::kernels::cuda
