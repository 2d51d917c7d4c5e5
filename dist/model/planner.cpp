#include "dist/model/planner.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "core/error.h"

namespace mla::dist {
namespace {

// Only ratios matter. A core that reads some GB/s computes some hundred GFLOP/s.
constexpr double kProductsPerByte = 20;
constexpr double kBytesPerMessage = 5e4;    ///< read in the time that a collective takes, or so
constexpr double kBytesPerMessageByte = 2;  ///< written by one, read by another

double bytes_of(const MatrixView& matrix) {
  return static_cast<double>(matrix.rows * matrix.row_bytes());
}
double bytes_of(const MlpWeights& mlp) {
  return bytes_of(mlp.gate) + bytes_of(mlp.up) + bytes_of(mlp.down);
}

/// Bytes that every step reads, and bytes of one expert of one layer.
struct WeightBytes {
  double dense = 0;   ///< shared by a group
  double values = 0;  ///< W_UV, of those
  double router = 0;  ///< read by every rank
  double head = 0;
  double expert = 0;
};

WeightBytes weight_bytes(const AttentionConfig& config, const ModelWeights& weights) {
  const double values_share =
      static_cast<double>(config.v_head_dim) / static_cast<double>(kv_b_head_dim(config));
  WeightBytes bytes;
  for (const LayerWeights& layer : weights.layers) {
    const AttentionWeights& a = layer.attention;
    bytes.dense += bytes_of(a.q) + bytes_of(a.q_a) + bytes_of(a.q_b) + bytes_of(a.kv_a) +
                   bytes_of(a.kv_b) + bytes_of(a.o) + bytes_of(layer.mlp) +
                   bytes_of(layer.moe.shared);
    bytes.values += bytes_of(a.kv_b) * values_share;
    bytes.router += bytes_of(layer.moe.router);
    if (!layer.moe.experts.empty()) bytes.expert = bytes_of(layer.moe.experts.front());
  }
  bytes.head = bytes_of(weights.head);
  return bytes;
}

std::int64_t expert_layers(const ModelConfig& config) {
  std::int64_t count = 0;
  for (std::int64_t layer = 0; layer < config.num_layers; ++layer) {
    count += has_experts(config, layer) ? 1 : 0;
  }
  return count;
}

/// Experts of a layer that the busiest rank reads: those that any of `tokens` tokens chooses, as a
/// fraction of an expert where ranks share rows, else whole ones.
double experts_read(const MoeConfig& moe, const ModelSharding& sharding, std::int64_t tokens) {
  const auto experts = static_cast<double>(moe.num_experts);
  const double missed =
      std::pow(1 - static_cast<double>(moe.top_k) / experts, static_cast<double>(tokens));
  const double chosen = experts * (1 - missed);
  const double each = chosen / sharding.ranks;
  if (sharding.groups() == 1) return each;
  // Chance gives the busiest rank about a standard deviation or two more than its share.
  return std::min(std::ceil(experts / sharding.ranks), std::max(1.0, each + std::sqrt(each)));
}

void add_messages(const ModelConfig& config, double tokens, ShardingCost& cost) {
  const ModelSharding& s = cost.sharding;
  const MoeConfig& moe = config.moe;
  const AttentionConfig& a = config.attention;
  const auto layers = static_cast<double>(config.num_layers);
  const auto moe_layers = static_cast<double>(expert_layers(config));
  const auto hidden = static_cast<double>(config.hidden_size);
  const auto top_k = static_cast<double>(moe.top_k);
  const double group_tokens = std::ceil(tokens / s.groups());
  double floats = 0;
  if (s.group_size > 1) {
    const auto dense = static_cast<double>(config.intermediate_size);
    const auto shared = static_cast<double>(moe.shared_intermediate_size);
    cost.messages += layers * 5 + (moe.shared_intermediate_size > 0 ? moe_layers : 0);
    floats += layers * group_tokens *
              (static_cast<double>(a.q_lora_rank + cache_width(a) + a.num_heads * a.v_head_dim) +
               2 * hidden);
    floats += group_tokens * ((layers - moe_layers) * dense + moe_layers * shared);
  }
  if (s.groups() > 1) {
    cost.messages += moe_layers * 2 + 1;
    floats +=
        moe_layers * (tokens * (hidden + top_k) + group_tokens * top_k * hidden / s.group_size);
    floats += tokens * hidden;
  } else if (s.ranks > 1) {
    cost.messages += moe_layers;
    floats += moe_layers * tokens * top_k * static_cast<double>(moe.intermediate_size);
  }
  if (s.splits_cache()) {  // of all heads: queries; partials and outputs, or bf16 values
    cost.messages += layers * (s.fast_combine ? 2 : 3);
    const double partials = s.fast_combine
                                ? 0.5 * static_cast<double>(a.v_head_dim)
                                : static_cast<double>((s.group_size + 1) * a.kv_lora_rank);
    floats += layers * group_tokens * static_cast<double>(a.num_heads) *
              (static_cast<double>(cache_width(a)) + partials);
  }
  cost.messages += s.ranks > 1 ? 1 : 0;
  cost.message_bytes = 4 * floats;
}

ShardingCost cost_of(const ModelConfig& config, const ModelWeights& weights,
                     const ModelSharding& sharding, const ModelWorkload& workload,
                     const ModelLimits& limits, const kernels::HostBackend& backend) {
  ShardingCost cost{.sharding = sharding, .limits = limits};
  const std::int64_t group_requests = ceil_div(workload.requests, sharding.groups());
  const std::int64_t rank_context =
      sharding.splits_cache() ? std::min(sharding.cache_run, workload.context) : workload.context;
  cost.limits.num_pages = group_requests * ceil_div(rank_context, kPageTokens);
  for (int rank = 0; rank < sharding.ranks; ++rank) {
    const RankMemory memory = rank_memory(config, weights, sharding, cost.limits, backend, rank);
    if (memory.total() > cost.memory.total()) cost.memory = memory;
  }

  const AttentionConfig& a = config.attention;
  const WeightBytes bytes = weight_bytes(a, weights);
  const auto layers = static_cast<double>(config.num_layers);
  const auto group_tokens = static_cast<double>(group_requests);
  const double experts = config.moe.num_experts == 0
                             ? 0
                             : static_cast<double>(expert_layers(config)) * bytes.expert *
                                   experts_read(config.moe, sharding, workload.requests);
  cost.weight_bytes =
      bytes.dense / sharding.group_size + bytes.router + bytes.head / sharding.ranks + experts;
  if (sharding.fast_combine) cost.weight_bytes += bytes.values * (1 - 1.0 / sharding.group_size);
  const double rows = layers * group_tokens * static_cast<double>(rank_context);
  cost.cache_bytes = rows * static_cast<double>(cache_width(a) * size_of(limits.kv_dtype));
  const double heads = sharding.splits_cache()
                           ? static_cast<double>(a.num_heads)
                           : std::ceil(static_cast<double>(a.num_heads) / sharding.group_size);
  cost.products = rows * heads * static_cast<double>(cache_width(a) + a.kv_lora_rank) +
                  group_tokens * cost.weight_bytes / 2;
  add_messages(config, static_cast<double>(workload.requests), cost);
  cost.total = std::max(cost.weight_bytes + cost.cache_bytes, cost.products / kProductsPerByte) +
               cost.messages * kBytesPerMessage + cost.message_bytes * kBytesPerMessageByte;
  return cost;
}

std::string gib_text(std::int64_t bytes) {
  char text[32];
  std::snprintf(text, sizeof text, "%.2f GiB", static_cast<double>(bytes) / 1073741824.0);
  return text;
}

}  // namespace

std::vector<ShardingCost> sharding_costs(const ModelConfig& config, const ModelWeights& weights,
                                         int ranks, const ModelWorkload& workload,
                                         const ModelLimits& limits,
                                         const kernels::HostBackend& backend) {
  std::vector<ShardingCost> costs;
  for (int groups = 1; groups <= ranks; ++groups) {
    if (ranks % groups != 0) continue;
    costs.push_back(cost_of(config, weights, {ranks, ranks / groups}, workload, limits, backend));
  }
  ModelSharding kv = parse_model_sharding("kv", ranks, workload.context);
  kv.fast_combine = workload.fast_combine;
  costs.push_back(cost_of(config, weights, kv, workload, limits, backend));
  return costs;
}

void require_fits(const ShardingCost& cost, std::int64_t rank_bytes) {
  const RankMemory& memory = cost.memory;
  if (memory.total() <= rank_bytes) return;
  throw InvalidArgument(
      "memory of a rank",
      gib_text(memory.total()) + " (weights " + gib_text(memory.weights + memory.copies) +
          ", cache " + gib_text(memory.cache) + ", buffers " + gib_text(memory.buffers) +
          ") with sharding " + to_string(cost.sharding),
      "at most " + gib_text(rank_bytes) + ": more ranks, or fewer requests at a time");
}

const ShardingCost& choose_sharding(const std::vector<ShardingCost>& costs,
                                    std::int64_t rank_bytes) {
  const ShardingCost* best = nullptr;
  const ShardingCost* smallest = &costs.front();
  for (const ShardingCost& cost : costs) {
    if (cost.memory.total() < smallest->memory.total()) smallest = &cost;
    if (cost.memory.total() > rank_bytes) continue;
    if (best == nullptr || cost.total < best->total) best = &cost;
  }
  if (best == nullptr) require_fits(*smallest, rank_bytes);
  return *best;
}

}  // namespace mla::dist
