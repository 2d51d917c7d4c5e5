#include "kernels/cuda/device_plan.h"

#include <algorithm>
#include <limits>
#include <map>
#include <set>

#include <gtest/gtest.h>

#include "core/chunk_tree.h"
#include "core/error.h"
#include "core/partial.h"
#include "kernels/cuda/deal.h"

#ifdef MLA_HAVE_RAPIDCHECK
#include <rapidcheck.h>
#include <rapidcheck/gtest.h>
#endif

namespace mla::kernels::cuda {
namespace {

constexpr std::int64_t kDv = 32;
constexpr DealCosts kCosts;

/// A batch's items, each with a `q` of its own by which its parts are known.
struct Items {
  PlanSizes sizes{kDv, 512, true};
  KernelGeometry geometry{4, 1, 64, 64};
  std::vector<DeviceItem> items;

  Items& exact(bool exact) {
    sizes.exact = exact;
    return *this;
  }
  Items& add(std::int64_t context_len, std::int64_t rows = 16) {
    DeviceItem item;
    item.q = std::ssize(items);
    item.heads = rows;
    item.context_len = context_len;
    item.rows = {0, rows};
    item.chunks = {0, ceil_div(context_len, sizes.chunk_tokens)};
    items.push_back(item);
    return *this;
  }
  Items& chunks(Range chunks) {
    items.back().chunks = chunks;
    return *this;
  }
  DevicePlan plan() const { return make_device_plan(items, sizes, geometry); }
};

/// All parts with work, as the teams come to them.
std::vector<std::vector<const Part*>> parts_of_teams(const DevicePlan& plan) {
  std::vector<std::vector<const Part*>> teams(plan.geometry.teams);
  for (int team = 0; team < plan.geometry.teams; ++team) {
    for (std::int32_t p = team; p >= 0; p = plan.parts[p].next) {
      if (plan.parts[p].rows > 0) teams[team].push_back(&plan.parts[p]);
    }
  }
  return teams;
}

/// The parts of each (item, first row), in the order of their keys.
using PartsOfRows = std::map<std::pair<std::int64_t, std::int32_t>, std::vector<const Part*>>;
PartsOfRows parts_of_rows(const DevicePlan& plan) {
  PartsOfRows parts;
  for (const auto& team : parts_of_teams(plan)) {
    for (const Part* part : team) parts[{part->q, part->row_begin}].push_back(part);
  }
  for (auto& [key, of_rows] : parts) {
    std::sort(of_rows.begin(), of_rows.end(),
              [](const Part* a, const Part* b) { return a->token_begin < b->token_begin; });
  }
  return parts;
}

/// What is wrong with a plan; each check returns an empty text if all is well.
class Checker {
 public:
  explicit Checker(const Items& problem) : problem_(problem), plan_(problem.plan()) {}

  std::string run() {
    for (const auto check : {&Checker::coverage, &Checker::steps, &Checker::places,
                             &Checker::merges, &Checker::shares}) {
      std::string wrong = (this->*check)();
      if (!wrong.empty()) return wrong;
    }
    return {};
  }

  /// Every row of every item reads its keys once, in order, and no part has too many rows.
  std::string coverage() {
    PartsOfRows parts = parts_of_rows(plan_);
    for (const DeviceItem& item : problem_.items) {
      const Range tokens = tokens_of(item);
      if (tokens.empty() && item.context_len > 0) continue;
      for (std::int64_t row = item.rows.begin; row < item.rows.end;) {
        const auto found = parts.find({item.q, static_cast<std::int32_t>(row)});
        if (found == parts.end()) return "rows are missing";
        std::int64_t token = tokens.begin;
        const std::int64_t rows = found->second.front()->rows;
        for (const Part* part : found->second) {
          if (part->token_begin != token || part->rows != rows) return "keys are not covered once";
          token = part->token_end;
        }
        if (token != tokens.end) return "keys are missing";
        if (rows > problem_.geometry.rows_per_part) return "too many rows";
        row += rows;
        if (row > item.rows.end) return "more rows than the item has";
        parts.erase(found);
      }
    }
    return parts.empty() ? "" : "parts of nothing";
  }

  /// Parts are chunks in exact plans, and cut at tiles in fast ones.
  std::string steps() {
    const bool exact = problem_.sizes.exact;
    const std::int64_t step = exact ? problem_.sizes.chunk_tokens : problem_.geometry.tile_tokens;
    for (const auto& team : parts_of_teams(plan_)) {
      std::set<std::pair<std::int64_t, std::int32_t>> seen;
      for (const Part* part : team) {
        const std::int64_t size = std::int64_t{part->token_end} - part->token_begin;
        if (part->token_begin % step != 0) return "a part begins within a step";
        if (part->token_begin % plan_.part_alignment != 0) return "a part is not aligned";
        if (part->token_end % step != 0 && part->token_end != part->context_len) {
          return "a part ends within a step";
        }
        if (exact && size > step) return "a part is more than a chunk";
        if (!exact && !seen.insert({part->q, part->row_begin}).second) {
          return "two parts of one team for the same rows";
        }
      }
    }
    return {};
  }

  /// Partials lie in the buffer, and none upon another.
  std::string places() {
    std::map<std::int64_t, std::int64_t> sizes;            // by offset
    std::set<std::pair<std::int64_t, std::int64_t>> rows;  // offset, row
    const auto add = [&](const PartialPlace& place, std::int64_t count) {
      const std::int64_t floats = partial_floats(place.rows, kDv);
      bool fine =
          place.offset % 16 == 0 && sizes.emplace(place.offset, floats).first->second == floats;
      for (std::int64_t r = 0; r < count; ++r) {
        fine = fine && rows.insert({place.offset, place.row_begin + r}).second;
        fine = fine && place.row_begin + r < place.rows;
      }
      return fine;
    };
    for (const Part& part : plan_.parts) {
      if (part.partial.offset >= 0 && !add(part.partial, part.rows)) return "a partial's place";
      if (part.merge >= 0 && part.partial.offset < 0) return "a merge without a partial";
    }
    for (const Merge& merge : plan_.merges) {
      if (merge.node.offset >= 0 && !add(merge.node, merge.rows)) return "a node's place";
    }
    std::int64_t end = 0;
    for (const auto& [offset, floats] : sizes) {
      if (offset < end) return "partials overlap";
      end = offset + floats;
    }
    return end <= plan_.partial_floats ? "" : "partials exceed the buffer";
  }

  /// Merges get the partials of their rows in order and lead to the result, or to the nodes of the
  /// canonical tree.
  std::string merges() {
    std::vector<std::int64_t> counts(plan_.merges.size(), 0);
    for (const auto& [key, parts] : parts_of_rows(plan_)) {
      const DeviceItem& item = problem_.items[key.first];
      const bool open = item.chunks != all_chunks(item);
      for (const Part* part : parts) {
        const std::int64_t chunk = part->token_begin / problem_.sizes.chunk_tokens;
        const std::int64_t node = open ? node_offset(item, chunk) : -1;
        if (part->merge < 0) {
          if (part->partial.offset != node) return "a part without a merge leads elsewhere";
          continue;
        }
        const Merge& merge = plan_.merges[part->merge];
        if (merge.node.offset != node) return "a merge leads elsewhere";
        if (merge.out != part->out || merge.lse != part->lse || merge.heads != part->heads ||
            merge.rows != part->rows || merge.row_begin != part->row_begin) {
          return "a merge of other rows";
        }
        if (part->partial.offset != merge.first.offset + counts[part->merge]++ * merge.stride) {
          return "partials are out of order";
        }
      }
    }
    for (std::size_t m = 0; m < counts.size(); ++m) {
      if (counts[m] != plan_.merges[m].count || counts[m] < 2) return "a merge's count";
    }
    return {};
  }

  /// The blocks of a merge are dealt out once, and the teams that have parts of it are among them.
  std::string shares() {
    const int teams = plan_.geometry.teams;
    const int blocks = plan_.geometry.blocks_per_team;
    if (std::ssize(plan_.share_offsets) != teams + 1) return "share_offsets";
    std::vector<std::set<std::int32_t>> dealt(plan_.merges.size());
    const auto parts = parts_of_teams(plan_);
    for (int team = 0; team < teams; ++team) {
      std::set<std::int32_t> shared;
      for (std::int32_t s = plan_.share_offsets[team]; s < plan_.share_offsets[team + 1]; ++s) {
        const MergeShare& share = plan_.shares[s];
        shared.insert(share.merge);
        for (int b = 0; b < blocks; ++b) {
          if (!dealt[share.merge].insert(share.first_block + b).second) return "a block twice";
        }
      }
      for (const Part* part : parts[team]) {
        if (part->merge >= 0 && !shared.contains(part->merge)) return "a team leaves its merge";
      }
    }
    for (std::size_t m = 0; m < dealt.size(); ++m) {
      if (std::ssize(dealt[m]) != plan_.merges[m].blocks) return "a merge's blocks";
      if (*dealt[m].rbegin() + 1 != plan_.merges[m].blocks) return "a merge's blocks' numbers";
    }
    return {};
  }

 private:
  Range all_chunks(const DeviceItem& item) const {
    return {0, ceil_div(item.context_len, problem_.sizes.chunk_tokens)};
  }
  Range tokens_of(const DeviceItem& item) const {
    const std::int64_t chunk = problem_.sizes.chunk_tokens;
    return {item.chunks.begin * chunk, std::min(item.context_len, item.chunks.end * chunk)};
  }
  std::int64_t node_offset(const DeviceItem& item, std::int64_t chunk) const {
    const std::int64_t all = all_chunks(item).end;
    std::int64_t offset = plan_.node_offsets[item.q];
    for (const TreeNode node : maximal_nodes(item.chunks, all)) {
      if (chunk < chunks_of(node, all).end) return offset;
      offset += partial_floats(item.rows.size(), kDv);
    }
    return -2;
  }

  Items problem_;
  DevicePlan plan_;
};

std::string errors_of(const Items& problem) {
  return Checker(problem).run();
}

double busiest(std::span<const Run> runs, std::span<const std::int64_t> tiles, int teams) {
  std::vector<double> loads(teams, 0);
  for (const Run& run : runs) {
    const bool cut = run.tiles != Range{0, tiles[run.unit]};
    loads[run.team] += kCosts.part + double(run.tiles.size()) + (cut ? kCosts.merge : 0);
  }
  return *std::max_element(loads.begin(), loads.end());
}

TEST(DevicePlan, OfAFastBatchIsTheDrawnOne) {
  const Items problem = Items().exact(false).add(50 * 64).add(20 * 64).add(50 * 64);
  std::vector<std::vector<std::int64_t>> tiles;
  const DevicePlan plan = problem.plan();
  for (const auto& parts : parts_of_teams(plan)) {
    tiles.emplace_back();
    for (const Part* part : parts) {
      tiles.back().push_back((part->token_end - part->token_begin) / 64);
    }
  }
  EXPECT_EQ(tiles, (std::vector<std::vector<std::int64_t>>{{31}, {19, 10}, {10, 19}, {31}}));
  EXPECT_EQ(plan.merges.size(), 3U);
  EXPECT_EQ(errors_of(problem), "");
}

TEST(DevicePlan, KeepsEqualItemsWholeWhereThereIsNearlyOneForEachTeam) {
  Items problem;
  problem.exact(false).geometry = {132, 1, 64, 64};
  for (int i = 0; i < 128; ++i) problem.add(4096);
  const DevicePlan plan = problem.plan();
  EXPECT_TRUE(plan.merges.empty());
  EXPECT_EQ(std::ssize(plan.parts), 132);
  EXPECT_EQ(errors_of(problem), "");
}

TEST(DevicePlan, CutsAFewItemsOverAllTeamsInEqualRuns) {
  Items problem;
  problem.exact(false).geometry = {132, 1, 64, 64};
  for (int i = 0; i < 4; ++i) problem.add(4096);
  const DevicePlan plan = problem.plan();
  ASSERT_EQ(plan.merges.size(), 4U);
  for (const Merge& merge : plan.merges) EXPECT_EQ(merge.count, 32);
  for (const Part& part : plan.parts) EXPECT_LE(part.token_end - part.token_begin, 128);
}

TEST(DevicePlan, GivesEveryClusterAnItemOfItsOwn) {
  for (const int per_team : {1, 2, 5}) {
    Items problem;
    problem.exact(false).geometry = {15, 8, 16, 64};
    for (int i = 0; i < 15 * per_team; ++i) problem.add(4096);
    EXPECT_TRUE(problem.plan().merges.empty());
    EXPECT_EQ(errors_of(problem), "");
  }
}

TEST(DevicePlan, GivesEveryChunkOfAFewItemsATeam) {
  Items problem;
  problem.geometry = {132, 1, 64, 64};
  problem.add(16 * 512).add(10 * 512 - 100);
  int busy = 0;
  for (const auto& parts : parts_of_teams(problem.plan())) busy += parts.size() == 1 ? 1 : 0;
  EXPECT_EQ(busy, 26);
  EXPECT_EQ(errors_of(problem), "");
}

TEST(DevicePlan, LetsIdleTeamsHelpToMerge) {
  Items problem;
  problem.geometry = {12, 1, 64, 64};
  problem.add(2 * 512, 64);
  const DevicePlan plan = problem.plan();
  ASSERT_EQ(plan.merges.size(), 1U);
  EXPECT_EQ(plan.merges[0].blocks, 64 * kDv / 512);
  EXPECT_EQ(errors_of(problem), "");
}

TEST(DevicePlan, FinishesAnItemOfOneChunkWithoutAMerge) {
  const DevicePlan plan = Items().add(512).add(1).plan();
  EXPECT_TRUE(plan.merges.empty());
  EXPECT_EQ(plan.partial_floats, 0);
}

TEST(DevicePlan, WritesTheRowsOfAnItemThatSeesNoKey) {
  for (const bool exact : {true, false}) {
    Items problem;
    problem.exact(exact).add(0, 100).add(700);
    EXPECT_EQ(errors_of(problem), "");
    std::int64_t rows = 0;
    for (const Part& part : problem.plan().parts) rows += part.q == 0 ? part.rows : 0;
    EXPECT_EQ(rows, 100);
  }
}

TEST(DevicePlan, LeavesTheNodesOfOpenItems) {
  Items problem;
  problem.add(9 * 512, 100).chunks({1, 8}).add(5 * 512).add(3 * 512).chunks({2, 3});
  const DevicePlan plan = problem.plan();  // chunks 1; 2, 3; 4 to 7
  const std::int64_t node = partial_floats(100, kDv);
  EXPECT_EQ(plan.node_offsets,
            (std::vector<std::int64_t>{0, 3 * node, 3 * node, 3 * node + partial_floats(16, kDv)}));
  EXPECT_EQ(errors_of(problem), "");
}

TEST(DevicePlan, ComputesNothingOfARequestWhoseChunksAreElsewhere) {
  const DevicePlan plan = Items().add(512).chunks({1, 1}).plan();
  for (const Part& part : plan.parts) EXPECT_EQ(part.rows, 0);
}

TEST(DevicePlan, TakesTheLongestContexts) {
  constexpr std::int64_t kLongest = std::numeric_limits<std::int32_t>::max();
  for (const bool exact : {true, false}) {
    Items problem;
    problem.exact(exact).sizes.chunk_tokens = std::int64_t{1} << 24;
    problem.geometry = {132, 1, 64, 64};
    problem.add(kLongest, 100).add(kLongest).add(1);
    EXPECT_EQ(errors_of(problem), "");
  }
}

TEST(DevicePlan, NamesWhatDoesNotFit) {
  const auto message = [](auto change) {
    Items problem;
    problem.add(100);
    change(problem.items[0]);
    try {
      problem.plan();
    } catch (const InvalidArgument& error) {
      return std::string(error.what());
    }
    return std::string("nothing");
  };
  constexpr std::int64_t kTooMany = std::int64_t{1} << 31;
  EXPECT_EQ(message([](DeviceItem& item) { item.context_len = kTooMany; }),
            "items[0].context_len: 2147483648; expected 0 to 2147483647");
  EXPECT_EQ(message([](DeviceItem& item) { item.query_len = kTooMany / 16; }),
            "items[0].query_len * heads: 2147483648; expected 0 to 2147483647");
}

TEST(DevicePlan, CutsARequestOverRanksInExactPlansOnly) {
  EXPECT_THROW(Items().exact(false).add(1024).chunks({0, 1}).plan(), InvalidArgument);
}

TEST(DealRuns, GivesNobodyMuchMoreThanItsShare) {
  const std::vector<std::int64_t> tiles{64, 705, 28, 27};
  const auto runs = deal_runs(tiles, 132);
  EXPECT_LE(busiest(runs, tiles, 132), 824.0 / 132 + 2 + 2 * kCosts.part + 2 * kCosts.merge);
}

#ifdef MLA_HAVE_RAPIDCHECK

Items any_items() {
  Items problem;
  problem.sizes.exact = *rc::gen::arbitrary<bool>();
  problem.sizes.chunk_tokens = *rc::gen::element<std::int64_t>(64, 100, 512);
  problem.geometry = {*rc::gen::inRange(1, 40), *rc::gen::element(1, 2, 8),
                      *rc::gen::element<std::int64_t>(16, 64, 128),
                      *rc::gen::element<std::int64_t>(16, 32, 64)};
  const auto count = *rc::gen::inRange(0, 20);
  for (int i = 0; i < count; ++i) {
    problem.add(*rc::gen::inRange<std::int64_t>(0, 5000), *rc::gen::inRange<std::int64_t>(1, 300));
    DeviceItem& item = problem.items.back();
    item.rows.begin = *rc::gen::inRange<std::int64_t>(0, item.rows.end);
    if (problem.sizes.exact && *rc::gen::arbitrary<bool>()) {
      item.chunks.begin = *rc::gen::inRange<std::int64_t>(0, item.chunks.end + 1);
      item.chunks.end = *rc::gen::inRange<std::int64_t>(item.chunks.begin, item.chunks.end + 1);
    }
  }
  return problem;
}

RC_GTEST_PROP(DevicePlan, IsRightForAnyItems, ()) {
  RC_ASSERT(errors_of(any_items()) == "");
}

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
