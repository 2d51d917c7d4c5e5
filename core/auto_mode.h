#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "core/batch.h"
#include "core/cost_model.h"
#include "core/partition.h"

namespace mla {

/// What a mode that ShardMode::Kind::kAuto weighs comes to, and what it costs the slowest rank.
struct WeighedMode {
  Partition partition;
  double cost = 0;  ///< FLOP-equivalents
};

/// All that kAuto weighs, predicted, in order of preference: kBatch, kKv, each grid, kHeads.
std::vector<WeighedMode> weigh_modes(const Batch& batch, int ranks, const CostModel& cost);

/// The place of the mode to take, of at least one, in order of preference, that cost so much: the
/// first within 3 % of the cheapest, since so small a difference says nothing.
std::size_t preferred_mode(std::span<const double> costs);

}  // namespace mla
