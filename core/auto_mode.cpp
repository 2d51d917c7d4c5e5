#include "core/auto_mode.h"

#include <algorithm>
#include <utility>

namespace mla {
namespace {

constexpr double kTie = 1.03;  // what costs may differ by and say nothing

std::vector<ShardMode> modes_for(int ranks, std::int64_t h_q) {
  std::vector<ShardMode> modes{{.kind = ShardMode::Kind::kBatch}, {.kind = ShardMode::Kind::kKv}};
  for (std::int64_t slices = 2; slices < ranks && slices <= h_q; ++slices) {
    if (ranks % slices == 0) modes.push_back({ShardMode::Kind::kGrid, slices, ranks / slices});
  }
  if (ranks <= h_q) modes.push_back({.kind = ShardMode::Kind::kHeads});
  return modes;
}

}  // namespace

std::vector<WeighedMode> weigh_modes(const Batch& batch, int ranks, const CostModel& cost) {
  std::vector<WeighedMode> weighed;
  for (const ShardMode& mode : modes_for(ranks, batch.shape.h_q)) {
    Partition partition = make_partition(batch, mode, ranks, cost);
    const auto loads = loads_of(batch, partition, cost, CountPages::kNo);
    weighed.push_back({std::move(partition), predicted_cost(batch, loads, cost).total()});
  }
  return weighed;
}

std::size_t preferred_mode(std::span<const double> costs) {
  const double enough = kTie * *std::min_element(costs.begin(), costs.end());
  const auto first =
      std::find_if(costs.begin(), costs.end(), [=](double cost) { return cost <= enough; });
  return static_cast<std::size_t>(first - costs.begin());
}

}  // namespace mla
