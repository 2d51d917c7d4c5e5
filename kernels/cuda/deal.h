#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/range.h"

namespace mla::kernels::cuda {

/// What a team pays besides its tiles, in tiles.
struct DealCosts {
  double part = 0.3;  ///< to begin and end a part
  double merge = 1;   ///< to take part in a merge

  friend bool operator==(const DealCosts&, const DealCosts&) = default;
};

/// Tiles of one unit of work that one team does one after the other.
struct Run {
  int team = 0;
  std::int64_t unit = 0;
  Range tiles;  ///< of the unit; may be empty

  friend bool operator==(const Run&, const Run&) = default;
};

/// Deals `tiles[unit]` tiles of each unit to teams so that the busiest has little to do, by
/// `costs`. Units stay whole where that is nearly as good; else they are laid end to end and cut
/// into one stretch for each team. A team does its runs in the order of the list, and a unit's runs
/// follow one another in it.
std::vector<Run> deal_runs(std::span<const std::int64_t> tiles, int teams, DealCosts costs = {});

/// Deals parts that cannot be cut to teams, in order, so that the busiest team's costs are least.
/// Returns the team of each part; they ascend.
std::vector<int> deal_in_order(std::span<const double> costs, int teams);

}  // namespace mla::kernels::cuda
