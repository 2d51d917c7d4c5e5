#include "launch/plan_model.h"

#include <filesystem>

#include <fmt/format.h>

#include "core/error.h"
#include "dist/model/planner.h"
#include "launch/machine.h"
#include "launch/tables.h"
#include "proto/checkpoint.h"
#include "proto/dummy_weights.h"
#include "proto/model_config.h"
#include "proto/model_presets.h"

namespace mla::launch {
namespace {

void print_costs(const std::vector<dist::ShardingCost>& costs) {
  const auto size = [](double bytes) { return bytes_text(static_cast<std::int64_t>(bytes)); };
  fmt::print("{:>12} {:>10} {:>10} {:>10} {:>10} | {:>10} {:>10} {:>9} {:>10} {:>10}\n", "sharding",
             "weights", "cache", "buffers", "memory", "weights", "cache", "messages", "received",
             "cost");
  for (const dist::ShardingCost& c : costs) {
    fmt::print("{:>12} {:>10} {:>10} {:>10} {:>10} | {:>10} {:>10} {:>9.0f} {:>10} {:>10}\n",
               to_string(c.sharding), bytes_text(c.memory.weights + c.memory.copies),
               bytes_text(c.memory.cache), bytes_text(c.memory.buffers),
               bytes_text(c.memory.total()), size(c.weight_bytes), size(c.cache_bytes), c.messages,
               size(c.message_bytes), size(c.total));
  }
}

}  // namespace

void plan_model(const PlanModelOptions& options) {
  const bool is_folder = std::filesystem::is_directory(options.model);
  ModelConfig config = proto::find_model_config(options.model);
  if (options.layers > 0) config = proto::cut_layers(config, options.layers);
  const ModelWeights weights = is_folder ? proto::load_weights(config, options.model)
                                         : proto::make_dummy_weights(config, 0, WeightType::kBf16);
  const dist::ModelLimits limits{.kv_dtype = parse_kv_dtype(options.kv_dtype),
                                 .max_tokens = options.max_tokens,
                                 .max_logits = options.requests};
  const auto costs = dist::sharding_costs(
      config, weights, options.ranks, {.requests = options.requests, .context = options.context},
      limits, kernels::find_host_backend(options.backend));
  const auto rank_bytes = options.rank_gib > 0
                              ? static_cast<std::int64_t>(options.rank_gib * 1073741824.0)
                              : memory_bytes() / options.ranks;
  fmt::print("model    {}: {} layers, {} heads, hidden {}, cache rows of {} {}\n", config.family,
             config.num_layers, config.attention.num_heads, config.hidden_size,
             cache_width(config.attention), name_of(limits.kv_dtype));
  fmt::print("plan     {} ranks of {}{}, {} requests of {} tokens\n", options.ranks,
             bytes_text(rank_bytes),
             options.rank_gib > 0 ? "" : " (what this machine has; see --rank-gib)",
             options.requests, options.context);
  fmt::print("         memory of the largest rank, then what it reads and receives in a step\n");
  print_costs(costs);
  if (options.sharding == "auto") {
    fmt::print("taken    {}\n", to_string(choose_sharding(costs, rank_bytes).sharding));
    return;
  }
  const dist::ModelSharding wanted =
      dist::parse_model_sharding(options.sharding, options.ranks, options.context);
  for (const dist::ShardingCost& cost : costs) {
    if (cost.sharding == wanted) require_fits(cost, rank_bytes);
  }
  fmt::print("taken    {}, as asked\n", to_string(wanted));
}

}  // namespace mla::launch
