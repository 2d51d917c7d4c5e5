#pragma once

#include <span>
#include <vector>

#include "core/batch.h"
#include "core/cost_model.h"
#include "core/partition.h"

namespace mla {

/// A mode that ShardMode::Kind::kAuto weighs, and what it costs the slowest rank.
struct WeighedMode {
  ShardMode mode;
  double cost = 0;  ///< FLOP-equivalents where predicted, seconds where measured
};

/// All that kAuto weighs, predicted, in order of preference: kBatch, kKv, each grid, kHeads.
std::vector<WeighedMode> weigh_modes(const Batch& batch, int ranks, const CostModel& cost);

/// The mode to take of some in order of preference, at least one: the first within 3 % of the
/// cheapest, since so small a difference says nothing.
ShardMode preferred_mode(std::span<const WeighedMode> modes);

}  // namespace mla
