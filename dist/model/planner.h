#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/model_config.h"
#include "core/model_weights.h"
#include "dist/model/limits.h"
#include "dist/model/rank_memory.h"
#include "dist/model/sharding.h"
#include "kernels/backend.h"

namespace mla::dist {

/// What a job is expected to decode at a time.
struct ModelWorkload {
  std::int64_t requests = 1;
  std::int64_t context = 1024;  ///< tokens of each, prompt and answer
  bool fast_combine = false;    ///< where the cache is split
};

/// What one step, a token of each request, costs the busiest rank with some sharding.
struct ShardingCost {
  ModelSharding sharding;
  ModelLimits limits;        ///< with the pages that a group's requests take up
  RankMemory memory;         ///< of the rank that needs most
  double weight_bytes = 0;   ///< read
  double cache_bytes = 0;    ///< read
  double products = 0;       ///< multiplications, of layers and attention
  double messages = 0;       ///< collective operations
  double message_bytes = 0;  ///< received
  double total = 0;          ///< of all that, as bytes of memory read
};

/// One entry for each number of groups that divides `ranks`, the fewest groups first, then one for
/// a group that splits its cache. A pure function of sizes: of `weights` only types and sizes are
/// read.
/// @param limits of which num_pages is worked out
std::vector<ShardingCost> sharding_costs(const ModelConfig& config, const ModelWeights& weights,
                                         int ranks, const ModelWorkload& workload,
                                         const ModelLimits& limits,
                                         const kernels::HostBackend& backend);

/// The cheapest that fits into `rank_bytes` of memory for each rank.
/// @throws InvalidArgument if none fits, with what the smallest one needs.
const ShardingCost& choose_sharding(const std::vector<ShardingCost>& costs,
                                    std::int64_t rank_bytes);

/// @throws InvalidArgument unless the model fits into `rank_bytes`.
void require_fits(const ShardingCost& cost, std::int64_t rank_bytes);

}  // namespace mla::dist
