#include "dist/model/split_cache.h"

#include <algorithm>
#include <cstring>

#include "kernels/weight_rows.h"

namespace mla::dist {

SplitCacheAttention::SplitCacheAttention(const RankContext& context)
    : context_(context),
      decoder_(context, context.config.attention.num_heads),
      queries_(context.group, context.limits.max_tokens, shape().h_q * shape().d_qk, shape().d_qk),
      rounded_(context.limits.max_tokens * shape().h_q * shape().d_qk *
               size_of(context.limits.kv_dtype)) {
  if (context.sharding.fast_combine) {
    projected_.emplace(context);
    return;
  }
  owned_ = AlignedBuffer<float>(context.limits.max_tokens * shape().h_q * shape().d_v);
  all_outputs_ = AlignedBuffer<float>(owned_.size());
}

std::int64_t SplitCacheAttention::buffer_bytes(const ModelConfig& config, const ModelLimits& limits,
                                               const ModelSharding& sharding) {
  const AttentionConfig& a = config.attention;
  const std::int64_t rows = limits.max_tokens * a.num_heads;
  return ColumnGather::bytes(limits.max_tokens, a.num_heads * cache_width(a), sharding.ranks) +
         rows * cache_width(a) * size_of(limits.kv_dtype) +
         (sharding.fast_combine ? ProjectedPartials::buffer_bytes(config, limits)
                                : rows * 2 * a.kv_lora_rank * 4);
}

void SplitCacheAttention::begin(const GroupStep& step) {
  combine_.reset();
  tokens_.clear();
  for (const GroupStep::Part& part : step.absorbed) tokens_.push_back(part.tokens);
  decoder_.begin(step);
  plan_partition();
  decoder_.plan(step, partition_.pieces_of(context_.group.rank()), rounded_.data());
  if (projected_) {
    begin_fast();
  } else {
    begin_exact();
  }
}

void SplitCacheAttention::begin_exact() {
  results_.emplace(batch(), partition_, context_.group.rank());
  // Windows of shared memory would cost more to make for a step than they save.
  combine_.emplace(context_.group, batch(), partition_,
                   CombineSettings{.exchange = ExchangeKind::kP2p, .threads = context_.threads});
}

void SplitCacheAttention::begin_fast() {
  std::vector<std::int64_t> sharers;
  for (std::size_t r = 0; r < tokens_.size(); ++r) {
    std::int64_t& ranks = sharers.emplace_back(0);
    for (int rank = 0; rank < context_.sharding.group_size; ++rank) {
      if (!chunks_of(rank, static_cast<std::int64_t>(r)).empty()) ++ranks;
    }
  }
  projected_->begin(tokens_, sharers);
}

Range SplitCacheAttention::chunks_of(int rank, std::int64_t request) const {
  const std::int64_t context = batch().requests[request].context_len;
  const Range positions = context_.sharding.cache_positions(rank, context);
  return {ceil_div(positions.begin, batch().chunk_tokens),
          ceil_div(positions.end, batch().chunk_tokens)};
}

/// A piece for each run of a sequence; the rank with most chunks of a sequence owns its results.
void SplitCacheAttention::plan_partition() {
  const auto requests = static_cast<std::int64_t>(batch().requests.size());
  const Range heads{0, shape().h_q};
  partition_ = {.mode = {.kind = ShardMode::Kind::kKv}};
  owned_tokens_.assign(static_cast<std::size_t>(context_.sharding.group_size), 0);
  for (std::int64_t r = 0; r < requests; ++r) {
    int owner = 0;
    for (int rank = 1; rank < context_.sharding.group_size; ++rank) {
      if (chunks_of(rank, r).size() > chunks_of(owner, r).size()) owner = rank;
    }
    partition_.ownerships.push_back({r, heads, owner});
    owned_tokens_[owner] += tokens_[r].size();
  }
  for (int rank = 0; rank < context_.sharding.group_size; ++rank) {
    partition_.piece_offsets.push_back(static_cast<std::int64_t>(partition_.pieces.size()));
    for (std::int64_t r = 0; r < requests; ++r) {
      const Range chunks = chunks_of(rank, r);
      if (!chunks.empty()) partition_.pieces.push_back({r, heads, chunks});
    }
  }
  partition_.piece_offsets.push_back(static_cast<std::int64_t>(partition_.pieces.size()));
}

void SplitCacheAttention::run(const std::byte* cache, float* outputs) {
  round_queries();
  const auto& open = decoder_.run(cache, *results_);
  combine_->post(decoder_.items(), open);
  combine_->finish(*results_);
  context_.partial_bytes_sent += combine_->stats().bytes_sent;
  spread_outputs(outputs);
}

void SplitCacheAttention::run(const std::byte* cache, const MatrixView& kv_b,
                              ColumnGather& values) {
  round_queries();
  const auto& open = decoder_.run(cache, *projected_);
  projected_->finish_open(decoder_.items(), open);
  projected_->combine(kv_b, values);
  context_.partial_bytes_sent += projected_->stats().bytes_sent;
}

void SplitCacheAttention::round_queries() {
  const std::int64_t tokens = tokens_.empty() ? 0 : tokens_.back().end;
  const float* const queries = queries_.gather(tokens);
  const std::int64_t d_qk = shape().d_qk;
#pragma omp parallel for schedule(static) num_threads(context_.threads)
  for (std::int64_t i = 0; i < tokens * shape().h_q; ++i) {
    kernels::store_scaled(context_.limits.kv_dtype, queries + i * d_qk, d_qk, 1,
                          rounded_.data() + i * d_qk * size_of(context_.limits.kv_dtype));
  }
}

void SplitCacheAttention::spread_outputs(float* outputs) {
  const std::int64_t d_v = shape().d_v;
  const std::int64_t token_floats = shape().h_q * d_v;
  float* packed = owned_.data();
  for (const ResultSlice& slice : results_->slices()) {
    std::memcpy(packed, slice.out.data(), slice.out.size());
    packed += slice.out.size() / sizeof(float);
  }
  gather_rows(context_.group, owned_tokens_, token_floats, owned_.data(), all_outputs_.data());
  context_.partial_bytes_sent +=
      owned_tokens_[context_.group.rank()] * token_floats * 4 * (context_.group.size() - 1);

  const Range heads = context_.part(shape().h_q);
  const float* from = all_outputs_.data();
  for (int owner = 0; owner < context_.sharding.group_size; ++owner) {
    for (const Ownership& owned : partition_.ownerships) {
      if (owned.owner != owner) continue;
      const Range tokens = tokens_[owned.request];
      for (std::int64_t t = tokens.begin; t < tokens.end; ++t, from += token_floats) {
        std::copy_n(from + heads.begin * d_v, heads.size() * d_v, outputs + t * heads.size() * d_v);
      }
    }
  }
}

}  // namespace mla::dist
