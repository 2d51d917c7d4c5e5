#include "kernels/cuda/deal.h"

#include <algorithm>
#include <numeric>
#include <queue>

namespace mla::kernels::cuda {
namespace {

/// How much longer the busiest team may take if that keeps all units whole.
constexpr double kWholeIsWorth = 1.03;

/// The least budget that `is_enough`, to a small part of a tile. `enough` must be, `too_little` may
/// be.
template <class IsEnough>
double least_budget(double too_little, double enough, IsEnough is_enough) {
  constexpr double kPrecision = 0.02;
  if (is_enough(too_little)) return too_little;
  while (enough - too_little > kPrecision) {
    const double middle = too_little + (enough - too_little) / 2;
    (is_enough(middle) ? enough : too_little) = middle;
  }
  return enough;
}

/// Longest first, each to the team that has least to do.
struct WholeDeal {
  std::vector<Run> runs;
  double busiest = 0;
};

WholeDeal deal_whole(std::span<const std::int64_t> tiles, int teams, DealCosts costs) {
  std::vector<std::int64_t> units(tiles.size());
  std::iota(units.begin(), units.end(), 0);
  std::stable_sort(units.begin(), units.end(),
                   [&](std::int64_t a, std::int64_t b) { return tiles[a] > tiles[b]; });
  using Load = std::pair<double, int>;
  std::priority_queue<Load, std::vector<Load>, std::greater<>> idlest;
  for (int team = 0; team < teams; ++team) idlest.push({0, team});
  WholeDeal deal;
  for (const std::int64_t unit : units) {
    auto [load, team] = idlest.top();
    idlest.pop();
    deal.runs.push_back({team, unit, {0, tiles[unit]}});
    load += costs.part + static_cast<double>(tiles[unit]);
    deal.busiest = std::max(deal.busiest, load);
    idlest.push({load, team});
  }
  return deal;
}

/// Cuts the units, laid end to end, into stretches.
class Cutter {
 public:
  Cutter(std::span<const std::int64_t> tiles, int teams, DealCosts costs)
      : tiles_(tiles), teams_(teams), costs_(costs) {
    const double all =
        std::accumulate(tiles.begin(), tiles.end(), 0.0,
                        [&](double sum, std::int64_t n) { return sum + costs.part + double(n); });
    const double everything = std::max(all, costs.part + costs.merge + 1);
    budget_ = least_budget(all / teams, everything,
                           [&](double budget) { return can_finish({}, teams_, budget); });
  }

  /// Cost of the busiest team.
  double budget() const { return budget_; }

  std::vector<Run> deal() const {
    std::vector<Run> runs;
    Place at;
    for (int team = 0; team < teams_; ++team) {
      at = fill(at, budget_, [&](Place next, Range tiles) {
        if (tiles.begin == 0 && tiles.end < tiles_[next.unit] && !runs.empty() &&
            runs.back().team == team && can_finish(next, teams_ - team - 1, budget_)) {
          return false;  // the next team can have this unit whole
        }
        runs.push_back({team, next.unit, tiles});
        return true;
      });
    }
    return runs;
  }

 private:
  struct Place {
    std::int64_t unit = 0;
    std::int64_t tile = 0;
  };

  /// Where a team comes to that starts at `at` and has `budget`. `take(place, tiles)` is told every
  /// run and may refuse it, which ends the stretch.
  template <class Take>
  Place fill(Place at, double budget, Take take) const {
    while (at.unit < std::ssize(tiles_)) {
      const std::int64_t all = tiles_[at.unit];
      const double rest =
          costs_.part + static_cast<double>(all - at.tile) + (at.tile > 0 ? costs_.merge : 0);
      if (rest <= budget) {
        if (!take(at, {at.tile, all})) break;
        budget -= rest;
        at = {at.unit + 1, 0};
        continue;
      }
      const auto some = static_cast<std::int64_t>(budget - costs_.part - costs_.merge);
      if (some >= 1 && take(at, {at.tile, at.tile + some})) at.tile += some;
      break;
    }
    return at;
  }

  bool can_finish(Place at, int teams, double budget) const {
    const auto take_all = [](Place, Range) { return true; };
    for (int team = 0; team < teams && at.unit < std::ssize(tiles_); ++team) {
      at = fill(at, budget, take_all);
    }
    return at.unit == std::ssize(tiles_);
  }

  std::span<const std::int64_t> tiles_;
  int teams_;
  DealCosts costs_;
  double budget_ = 0;
};

}  // namespace

std::vector<Run> deal_runs(std::span<const std::int64_t> tiles, int teams, DealCosts costs) {
  WholeDeal whole = deal_whole(tiles, teams, costs);
  const Cutter cutter(tiles, teams, costs);
  if (whole.busiest <= kWholeIsWorth * cutter.budget()) return std::move(whole.runs);
  return cutter.deal();
}

std::vector<int> deal_in_order(std::span<const double> costs, int teams) {
  constexpr double kRounding = 1e-6;
  std::vector<int> team_of(costs.size());
  const auto deal = [&](double budget) {
    double load = 0;
    int team = 0;
    for (std::size_t i = 0; i < costs.size(); ++i) {
      if (load > 0 && load + costs[i] > budget + kRounding) {
        ++team;
        load = 0;
      }
      load += costs[i];
      team_of[i] = team;
    }
    return team < teams;
  };
  const double all = std::accumulate(costs.begin(), costs.end(), 0.0);
  const double largest = costs.empty() ? 0 : *std::max_element(costs.begin(), costs.end());
  // With that, a team that has no room for the next part has more than its even share.
  const double enough = std::min(all, all / teams + largest);
  deal(least_budget(std::max(largest, all / teams), enough, deal));
  return team_of;
}

}  // namespace mla::kernels::cuda
