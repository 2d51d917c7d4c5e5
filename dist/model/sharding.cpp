#include "dist/model/sharding.h"

#include <charconv>

#include "core/batch.h"
#include "core/error.h"

namespace mla::dist {
namespace {

void add_mlp(const MlpWeights& mlp, const ModelSharding& sharding, int rank,
             std::vector<UsedRows>& used) {
  for (const MatrixView* matrix : {&mlp.gate, &mlp.up, &mlp.down}) {
    used.push_back({*matrix, group_part(sharding, rank, matrix->rows)});
  }
}

void add_attention(const AttentionConfig& config, const AttentionWeights& weights,
                   const ModelSharding& sharding, int rank, std::vector<UsedRows>& used) {
  const Range heads = group_part(sharding, rank, config.num_heads);
  const auto of_heads = [&](std::int64_t rows) {
    return Range{heads.begin * rows, heads.end * rows};
  };
  // Side by side, as they are computed.
  const Range latents = group_part(sharding, rank, weights.q_a.rows + weights.kv_a.rows);
  used.push_back({weights.q_a, rows_within(latents, 0, weights.q_a.rows)});
  used.push_back({weights.kv_a, rows_within(latents, weights.q_a.rows, weights.kv_a.rows)});
  used.push_back({config.q_lora_rank > 0 ? weights.q_b : weights.q, of_heads(q_head_dim(config))});
  used.push_back({weights.kv_b, of_heads(kv_b_head_dim(config))});
  for (std::int64_t h = 0; sharding.fast_combine && h < config.num_heads; ++h) {
    if (h < heads.begin || h >= heads.end) used.push_back({weights.kv_b, value_rows(config, h)});
  }
  used.push_back({weights.o, group_part(sharding, rank, weights.o.rows)});
}

void add_experts(const MoeWeights& weights, const ModelSharding& sharding, int rank,
                 std::vector<UsedRows>& used) {
  used.push_back({weights.router, {0, weights.router.rows}});
  add_mlp(weights.shared, sharding, rank, used);
  const auto count = static_cast<std::int64_t>(weights.experts.size());
  if (sharding.groups() == 1) {
    for (const MlpWeights& expert : weights.experts) add_mlp(expert, sharding, rank, used);
    return;
  }
  const Range own = experts_of(sharding, rank, count);
  for (std::int64_t e = own.begin; e < own.end; ++e) {
    add_mlp(weights.experts[e], {.ranks = 1, .group_size = 1}, 0, used);
  }
}

}  // namespace

ModelSharding parse_model_sharding(std::string_view text, int ranks, std::int64_t longest_context) {
  if (text == "heads" || (text == "kv" && ranks == 1)) return {ranks, ranks};
  if (text == "kv") {
    const std::int64_t chunks =
        ceil_div(std::max<std::int64_t>(longest_context, 1), kDefaultChunkTokens);
    return {ranks, ranks, ceil_div(chunks, ranks) * kDefaultChunkTokens};
  }
  if (text == "requests") return {ranks, 1};
  constexpr std::string_view kGroups = "groups:";
  int groups = 0;
  if (text.starts_with(kGroups)) {
    const std::string_view number = text.substr(kGroups.size());
    const auto [end, error] = std::from_chars(number.data(), number.data() + number.size(), groups);
    if (error != std::errc() || end != number.data() + number.size()) groups = 0;
  }
  if (groups < 1 || ranks % groups != 0) {
    throw InvalidArgument("model sharding", text,
                          "heads, kv, requests or groups:G with G a divisor of the " +
                              std::to_string(ranks) + " ranks");
  }
  return {ranks, ranks / groups};
}

std::string to_string(const ModelSharding& sharding) {
  if (sharding.splits_cache()) return "kv";
  if (sharding.groups() == 1) return "heads";
  if (sharding.group_size == 1) return "requests";
  return "groups:" + std::to_string(sharding.groups());
}

std::vector<UsedRows> used_rows(const ModelConfig& config, const ModelWeights& weights,
                                const ModelSharding& sharding, int rank) {
  std::vector<UsedRows> used;
  for (const LayerWeights& layer : weights.layers) {
    add_attention(config.attention, layer.attention, sharding, rank, used);
    add_mlp(layer.mlp, sharding, rank, used);
    add_experts(layer.moe, sharding, rank, used);
  }
  used.push_back({weights.head, even_part(weights.head.rows, sharding.ranks, rank)});
  std::erase_if(used, [](const UsedRows& u) { return u.rows.empty(); });
  return used;
}

}  // namespace mla::dist
