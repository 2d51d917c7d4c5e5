#include "dist/model/rank_memory.h"

#include <algorithm>

#include "dist/model/attention.h"
#include "dist/model/experts.h"
#include "dist/model/gather.h"
#include "dist/model/head.h"
#include "dist/model/mlp.h"
#include "kernels/linear.h"

namespace mla::dist {

std::int64_t linear_workspace_bytes(const ModelConfig& config, const ModelSharding& sharding,
                                    const ModelLimits& limits,
                                    const kernels::HostBackend& backend) {
  const AttentionConfig& a = config.attention;
  const MoeConfig& moe = config.moe;
  const std::int64_t heads = ceil_div(a.num_heads, sharding.group_size);
  const std::int64_t tokens = limits.max_tokens;
  const std::int64_t pairs = tokens * moe.top_k;
  std::int64_t bytes = 0;
  const auto need = [&](std::int64_t cols, std::int64_t rows, std::int64_t layers) {
    bytes = std::max(bytes, kernels::linear_workspace_bytes(backend, cols, rows, layers));
  };
  need(config.hidden_size, 3 * tokens, 3);          // latents and queries; gate and up
  need(a.q_lora_rank, tokens, 1);                   // queries
  need(a.qk_nope_head_dim, heads * tokens, heads);  // absorbed queries
  const std::int64_t value_heads = sharding.fast_combine ? a.num_heads : heads;
  need(a.kv_lora_rank, value_heads * tokens, value_heads);  // values
  need(a.kv_lora_rank, kDefaultChunkTokens, 1);             // keys and values of the MHA form
  need(a.num_heads * a.v_head_dim, tokens, 1);              // attention's output
  need(std::max(config.intermediate_size, moe.shared_intermediate_size), tokens, 1);  // down
  need(config.hidden_size, 2 * pairs, 2 * moe.num_experts);  // experts' gate and up
  need(moe.intermediate_size, pairs, moe.num_experts);       // experts' down
  need(config.hidden_size, limits.max_logits, 1);            // head
  return bytes;
}

RankMemory rank_memory(const ModelConfig& config, const ModelWeights& weights,
                       const ModelSharding& sharding, const ModelLimits& limits,
                       const kernels::HostBackend& backend, int rank) {
  RankMemory memory;
  for (const UsedRows& used : used_rows(config, weights, sharding, rank)) {
    memory.weights += used.rows.size() * used.matrix.row_bytes();
  }
  if (!config.tie_embeddings || sharding.ranks > 1) {
    memory.weights += weights.embedding.rows * weights.embedding.row_bytes();
  }
  const Range heads = group_part(sharding, rank, config.attention.num_heads);
  memory.copies = Attention::copied_bytes(config, weights, heads.size());
  memory.cache = Attention::cache_bytes(config, limits);
  memory.buffers =
      linear_workspace_bytes(config, sharding, limits, backend) +
      Attention::buffer_bytes(config, limits, sharding) +
      Mlp::buffer_bytes(limits.max_tokens, config.intermediate_size, sharding.group_size) +
      (config.moe.num_experts > 0 ? Experts::buffer_bytes(config, limits, sharding) : 0) +
      Head::buffer_bytes(config, limits, sharding.ranks) +
      limits.max_tokens * config.hidden_size * (config.moe.shortcut ? 3 : 2) * 4 +
      ColumnGather::bytes(limits.max_tokens, config.hidden_size, sharding.group_size);
  return memory;
}

}  // namespace mla::dist
