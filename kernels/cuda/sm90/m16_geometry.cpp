#include "kernels/cuda/sm90/m16_geometry.h"

#include <algorithm>
#include <numeric>
#include <vector>

#include "core/range.h"
#include "kernels/cuda/deal.h"

namespace mla::kernels::cuda {
namespace {

constexpr std::int64_t kRowsPerPart = 16;
constexpr std::int64_t kTileTokens = 64;

// Of one H200, in microseconds; docs/hopper.md says how they were measured.
constexpr double kTileOfMemory = 0.0165;  ///< 64 x 576 elements at the memory's full rate
constexpr double kSlowestShare = 1.08;    ///< a merge waits for the block that reads slowest
constexpr double kTileOfBlock = 1.17;     ///< a block's least time for one
constexpr double kLaunch = 4.0;
constexpr double kPart = 1.2;             ///< to begin and end a part, for a block alone
constexpr double kPartOfCluster = 1.87;   ///< ... for a cluster
constexpr double kNextPart = 5;           ///< what the loads lose between two parts of a team
constexpr double kMerge = 0.5;            ///< a merge by mail of blocks alone, and
constexpr double kMergeOfClusters = 1.9;  ///< ... of clusters, and
constexpr double kMergePartial = 0.025;   ///< ... for each partial that it reads

/// One count of steps for each part-high stack of rows.
std::vector<std::int64_t> steps_of(std::span<const DeviceItem> items, std::int64_t step_tokens) {
  std::vector<std::int64_t> steps;
  for (const DeviceItem& item : items) {
    const std::int64_t tiles = ceil_div(item.rows.size(), kRowsPerPart);
    steps.insert(steps.end(), tiles, ceil_div(item.context_len, step_tokens));
  }
  return steps;
}

}  // namespace

M16Residency m16_residency(int multiprocessors) {
  M16Residency residency{};
  for (std::size_t i = 0; i < residency.size(); ++i) {
    const int spare = kM16TeamSizes[i] > 2 ? 12 : 0;
    const int teams = (multiprocessors - spare) / kM16TeamSizes[i];
    residency[i] = std::clamp(teams, 0, kM16MostTeams);
  }
  return residency;
}

double m16_predicted_us(std::span<const DeviceItem> items, const KernelGeometry& geometry) {
  const std::vector<std::int64_t> steps = steps_of(items, geometry.tile_tokens);
  const std::vector<Run> runs = deal_runs(steps, geometry.teams);
  std::vector<double> busy(geometry.teams, 0.0);
  double all_tiles = 0;
  const int team_size = geometry.blocks_per_team;
  const double part = team_size > 1 ? kPartOfCluster : kPart;
  std::vector<int> runs_of(steps.size(), 0);
  for (const Run& run : runs) {
    busy[run.team] += (busy[run.team] > 0 ? kNextPart : part) +
                      kTileOfBlock * static_cast<double>(run.tiles.size());
    all_tiles += static_cast<double>(run.tiles.size() * geometry.blocks_per_team);
    ++runs_of[run.unit];
  }
  const double busiest = busy.empty() ? 0 : *std::max_element(busy.begin(), busy.end());
  const int most = runs_of.empty() ? 0 : *std::max_element(runs_of.begin(), runs_of.end());
  const double memory = part + kTileOfMemory * all_tiles * (most > 1 ? kSlowestShare : 1);
  const double merge =
      most > 1 ? (team_size > 1 ? kMergeOfClusters : kMerge) + kMergePartial * most : 0;
  return kLaunch + std::max(busiest, memory) + merge;
}

KernelGeometry m16_geometry_of(int teams, int blocks, std::int64_t d_v) {
  constexpr std::int64_t kElementsOfSlice = 4;
  return {.teams = teams,
          .blocks_per_team = blocks,
          .rows_per_part = kRowsPerPart,
          .tile_tokens = kTileTokens * blocks,
          .mail_slices = d_v / kElementsOfSlice / blocks};
}

KernelGeometry m16_geometry(std::span<const DeviceItem> items, std::int64_t d_v,
                            const M16Residency& residency) {
  KernelGeometry best = m16_geometry_of(1, 1, d_v);
  double best_us = m16_predicted_us(items, best);
  for (std::size_t i = 0; i < residency.size(); ++i) {
    const std::vector<std::int64_t> steps = steps_of(items, kTileTokens * kM16TeamSizes[i]);
    const std::int64_t all_steps = std::accumulate(steps.begin(), steps.end(), std::int64_t{0});
    std::vector<std::int64_t> counts{residency[i]};
    for (std::int64_t rounds = 1; rounds <= 4; ++rounds) {
      counts.push_back(ceil_div(std::ssize(steps), rounds));
      counts.push_back(ceil_div(all_steps, rounds));
    }
    for (const std::int64_t teams : counts) {
      if (teams < 1 || teams > std::min<std::int64_t>(all_steps, residency[i])) continue;
      const KernelGeometry geometry =
          m16_geometry_of(static_cast<int>(teams), kM16TeamSizes[i], d_v);
      const double us = m16_predicted_us(items, geometry);
      if (us < best_us) {
        best_us = us;
        best = geometry;
      }
    }
  }
  return best;
}

}  // namespace mla::kernels::cuda
