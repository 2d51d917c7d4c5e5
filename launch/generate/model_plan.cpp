#include "launch/generate/model_plan.h"

#include <algorithm>

#include "dist/model/planner.h"
#include "launch/machine.h"

namespace mla::launch {
namespace {

DType kv_dtype(const std::string& name) {
  if (name == "bf16") return DType::kBf16;
  return name == "fp16" ? DType::kFp16 : DType::kFp32;
}

/// Memory that each rank may use: its node's, shared by the ranks there; the least of all ranks.
std::int64_t rank_bytes(const dist::Communicator& comm) {
  constexpr double kShare = 0.9;  // the rest is for the system and for files
  const double mine = kShare * static_cast<double>(memory_bytes()) / comm.node().size();
  const auto all = comm.all_gather(static_cast<std::int64_t>(mine));
  return *std::min_element(all.begin(), all.end());
}

/// Those that the options allow.
std::vector<dist::ShardingCost> allowed(std::vector<dist::ShardingCost> costs,
                                        const GenerateOptions& options, int ranks,
                                        std::int64_t context) {
  if (options.sharding == "auto") return costs;
  const auto wanted = dist::parse_model_sharding(options.sharding, ranks, context);
  std::erase_if(costs, [&](const dist::ShardingCost& cost) { return cost.sharding != wanted; });
  return costs;
}

}  // namespace

std::int64_t context_of(const GenerateOptions& options, const ModelConfig& config) {
  return options.max_context == 0 ? config.max_position
                                  : std::min(options.max_context, config.max_position);
}

dist::ModelOptions plan_options(const dist::Communicator& comm, const GenerateOptions& options,
                                const ModelConfig& config, const ModelWeights& weights,
                                int threads) {
  const std::int64_t context = context_of(options, config);
  const std::int64_t bytes = rank_bytes(comm);
  const bool has_room = options.cache_tokens > 0;
  dist::ModelWorkload workload{.requests = has_room ? 1 : options.max_running,
                               .context = has_room ? options.cache_tokens : context};
  dist::ShardingCost taken;
  comm.together([&] {
    const dist::ModelLimits limits{
        .kv_dtype = kv_dtype(options.kv_dtype),
        .max_tokens = std::max(
            {options.max_step_tokens, options.max_running, static_cast<std::int64_t>(comm.size())}),
        .max_logits = std::max<std::int64_t>(options.max_running, comm.size())};
    const kernels::HostBackend& backend = kernels::find_host_backend(options.backend);
    while (true) {
      const auto costs =
          allowed(dist::sharding_costs(config, weights, comm.size(), workload, limits, backend),
                  options, comm.size(), workload.context);
      const bool fits = std::any_of(costs.begin(), costs.end(),
                                    [&](const auto& cost) { return cost.memory.total() <= bytes; });
      if (!fits && workload.requests > 1) {
        workload.requests /= 2;
        continue;
      }
      taken = dist::choose_sharding(costs, bytes);
      return;
    }
  });
  return {.sharding = taken.sharding,
          .limits = taken.limits,
          .threads = threads,
          .backend = options.backend,
          .longest_context = context};
}

}  // namespace mla::launch
