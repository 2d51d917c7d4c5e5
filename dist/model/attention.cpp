#include "dist/model/attention.h"

#include <algorithm>
#include <vector>

#include "kernels/activation.h"
#include "kernels/rotary.h"
#include "kernels/weight_rows.h"

namespace mla::dist {
namespace {

std::int64_t latents_width(const AttentionConfig& a) {
  return a.q_lora_rank + cache_width(a);
}

/// Adds the bias to this rank's columns of y, of which column `first` gets its element 0.
void add_bias(const std::vector<float>& bias, std::int64_t first, std::int64_t rows,
              ColumnGather& y) {
  const Range own = y.columns();
  const Range part = rows_within(own, first, static_cast<std::int64_t>(bias.size()));
  for (std::int64_t row = 0; row < rows; ++row) {
    float* const to = y.local() + row * y.stride() + first - own.begin;
    for (std::int64_t i = part.begin; i < part.end; ++i) to[i] += bias[i];
  }
}

}  // namespace

Attention::Attention(const RankContext& context)
    : context_(context),
      config_(context.config.attention),
      heads_(context.part(config_.num_heads)),
      row_width_(cache_width(config_)),
      kv_dtype_(context.limits.kv_dtype),
      keys_(copied_bytes(context.config, context.weights, heads_.size())),
      cache_(cache_bytes(context.config, context.limits)),
      latents_(context.group, context.limits.max_tokens, latents_width(config_)),
      normed_(context.limits.max_tokens * latents_width(config_)),
      q_(context.limits.max_tokens * heads_.size() * q_head_dim(config_)),
      absorbed_(context.limits.max_tokens * heads_.size() * config_.kv_lora_rank),
      lse_(context.limits.max_tokens * heads_.size()),
      queries_(context.limits.max_tokens * heads_.size() * row_width_ *
               size_of(context.limits.kv_dtype)),
      values_(context.group, context.limits.max_tokens, config_.num_heads * config_.v_head_dim,
              config_.v_head_dim),
      decoder_(context, heads_.size()),
      prefill_(context) {
  copy_keys();
  if (context.sharding.splits_cache()) split_.emplace(context);
}

std::int64_t Attention::copied_bytes(const ModelConfig& config, const ModelWeights& weights,
                                     std::int64_t heads) {
  std::int64_t bytes = 0;
  for (const LayerWeights& layer : weights.layers) {
    bytes += heads * config.attention.kv_lora_rank * config.attention.qk_nope_head_dim *
             size_of(kernels::transposed_type(layer.attention.kv_b.type));
  }
  return bytes;
}

std::int64_t Attention::cache_bytes(const ModelConfig& config, const ModelLimits& limits) {
  return config.num_layers * limits.num_pages * kPageTokens * cache_width(config.attention) *
         size_of(limits.kv_dtype);
}

std::int64_t Attention::buffer_bytes(const ModelConfig& config, const ModelLimits& limits,
                                     const ModelSharding& sharding) {
  const AttentionConfig& a = config.attention;
  const std::int64_t heads = ceil_div(a.num_heads, sharding.group_size);
  const std::int64_t split =
      sharding.splits_cache() ? SplitCacheAttention::buffer_bytes(config, limits, sharding) : 0;
  const std::int64_t floats = latents_width(a) + heads * (q_head_dim(a) + a.kv_lora_rank + 1);
  return split + PrefillAttention::buffer_bytes(config, limits, sharding) +
         limits.max_tokens * (floats * 4 + heads * cache_width(a) * size_of(limits.kv_dtype)) +
         ColumnGather::bytes(limits.max_tokens, latents_width(a), sharding.group_size) +
         ColumnGather::bytes(limits.max_tokens, a.num_heads * a.v_head_dim, sharding.group_size);
}

void Attention::copy_keys() {
  std::vector<float> scratch(static_cast<std::size_t>(config_.kv_lora_rank));
  std::byte* to = keys_.data();
  for (const LayerWeights& layer : context_.weights.layers) {
    const MatrixView& kv_b = layer.attention.kv_b;
    for (std::int64_t head = heads_.begin; head < heads_.end; ++head) {
      const MatrixView copy{.data = to,
                            .type = kernels::transposed_type(kv_b.type),
                            .rows = config_.kv_lora_rank,
                            .cols = config_.qk_nope_head_dim};
      kernels::transpose_rows(kv_b, key_rows(config_, head), scratch.data(), to);
      to += copy.rows * copy.row_bytes();
      key_views_.push_back(copy);
    }
  }
}

void Attention::begin(const GroupStep& step) {
  step_ = &step;
  rows_to_read_ = 0;
  if (split_ || !heads_.empty()) {
    const int rank = context_.group.rank();
    for (const auto* parts : {&step.absorbed, &step.prefills}) {
      for (const GroupStep::Part& part : *parts) {
        rows_to_read_ += context_.sharding.cache_positions(rank, part.context()).size();
      }
    }
  }
  if (step.absorbed.empty()) return;
  if (split_) {
    split_->begin(step);
  } else if (!heads_.empty()) {
    plan_decoder();
  }
}

void Attention::plan_decoder() {
  decoder_.begin(*step_);
  const Batch& batch = decoder_.batch();
  const Partition whole = make_partition(batch, {.kind = ShardMode::Kind::kBatch}, 1);
  decoder_.plan(*step_, whole.pieces, queries_.data());
  results_.emplace(batch);
  results_->write_to({.out = reinterpret_cast<std::byte*>(absorbed_.data()),
                      .out_token_stride = heads_.size() * config_.kv_lora_rank,
                      .out_head_stride = config_.kv_lora_rank,
                      .lse = lse_.data(),
                      .lse_token_stride = heads_.size(),
                      .lse_head_stride = 1});
}

void Attention::run(std::int64_t layer, const float* x, ColumnGather& out) {
  const AttentionWeights& weights = context_.weights.layers[layer].attention;
  project(weights, x);
  take_latents(layer, latents_.gather(step_->tokens()));
  rotate_queries();
  absorb(layer);
  write_queries();
  attend(layer);
  if (!context_.sharding.fast_combine) project_values(weights);
  prefill_.run(*step_, weights.kv_b, cache_of(layer), q_.data(), values_.local(), values_.stride());
  project_out(weights, values_.gather(step_->tokens()), out);
}

/// This rank's columns of q_a and kv_a, which are laid side by side, and, where there is no q_a,
/// its heads of q.
void Attention::project(const AttentionWeights& weights, const float* x) {
  layers_.clear();
  const std::int64_t tokens = step_->tokens();
  const Range own = latents_.columns();
  std::int64_t first = 0;
  for (const MatrixView* matrix : {&weights.q_a, &weights.kv_a}) {
    const Range rows = rows_within(own, first, matrix->rows);
    layers_.push_back({.weights = *matrix,
                       .outputs = rows,
                       .rows = tokens,
                       .x = x,
                       .x_stride = context_.config.hidden_size,
                       .y = latents_.local() + first + rows.begin - own.begin,
                       .y_stride = latents_.stride()});
    first += matrix->rows;
  }
  if (config_.q_lora_rank == 0)
    layers_.push_back(query_layer(weights.q, x, context_.config.hidden_size));
  context_.linear(layers_);
  add_bias(weights.q_a_bias, 0, tokens, latents_);
  add_bias(weights.kv_a_bias, config_.q_lora_rank, tokens, latents_);
}

kernels::LinearParams Attention::query_layer(const MatrixView& matrix, const float* x,
                                             std::int64_t x_stride) {
  const std::int64_t dim = q_head_dim(config_);
  return {.weights = matrix,
          .outputs = {heads_.begin * dim, heads_.end * dim},
          .rows = step_->tokens(),
          .x = x,
          .x_stride = x_stride,
          .y = q_.data(),
          .y_stride = heads_.size() * dim};
}

/// Norms: the latents of q become those that q_b reads, those of keys and values cache rows.
void Attention::take_latents(std::int64_t layer, const float* latents) {
  const AttentionWeights& weights = context_.weights.layers[layer].attention;
  const auto q_rank = static_cast<std::size_t>(config_.q_lora_rank);
  const auto kv_rank = static_cast<std::size_t>(config_.kv_lora_rank);
  const std::int64_t rope = config_.qk_rope_head_dim;
  const std::int64_t width = latents_width(config_);
#pragma omp parallel for schedule(static) num_threads(context_.threads)
  for (std::int64_t t = 0; t < step_->tokens(); ++t) {
    const float* const from = latents + t * width;
    float* const q = normed_.data() + t * width;
    float* const kv = q + q_rank;
    kernels::rms_norm({from, q_rank}, weights.q_a_norm.data(), config_.latent_norm_eps, q);
    kernels::rms_norm({from + q_rank, kv_rank}, weights.kv_a_norm.data(), config_.latent_norm_eps,
                      kv);
    std::copy_n(from + q_rank + kv_rank, rope, kv + kv_rank);
    rotate(t, kv + kv_rank);
    if (!has_row(t)) continue;
    std::byte* const row = cache_row(layer, t);
    kernels::store_scaled(kv_dtype_, kv, config_.kv_lora_rank, config_.kv_scale, row);
    kernels::store_scaled(kv_dtype_, kv + kv_rank, rope, 1,
                          row + config_.kv_lora_rank * size_of(kv_dtype_));
  }
  if (q_rank > 0) context_.linear(query_layer(weights.q_b, normed_.data(), width));
}

void Attention::rotate(std::int64_t token, float* x) const {
  const auto pairs = static_cast<std::size_t>(config_.qk_rope_head_dim / 2);
  kernels::rotate({&step_->cosines[token * pairs], pairs}, &step_->sines[token * pairs],
                  context_.config.rope.interleaved, x);
}

void Attention::rotate_queries() {
#pragma omp parallel for schedule(static) num_threads(context_.threads)
  for (std::int64_t i = 0; i < step_->tokens() * heads_.size(); ++i) {
    rotate(i / heads_.size(), q_.data() + i * q_head_dim(config_) + config_.qk_nope_head_dim);
  }
}

/// absorbed[token, head] = W_UK q_nope
void Attention::absorb(std::int64_t layer) {
  layers_.clear();
  for (std::int64_t h = 0; h < heads_.size(); ++h) {
    layers_.push_back({.weights = key_views_[layer * heads_.size() + h],
                       .outputs = {0, config_.kv_lora_rank},
                       .rows = step_->absorbed_tokens,
                       .x = q_.data() + h * q_head_dim(config_),
                       .x_stride = heads_.size() * q_head_dim(config_),
                       .y = absorbed_.data() + h * config_.kv_lora_rank,
                       .y_stride = heads_.size() * config_.kv_lora_rank});
  }
  context_.linear(layers_);
}

/// (absorbed, rope), in the type of the cache; in fp32 where they travel first.
void Attention::write_queries() {
  const std::int64_t heads = heads_.size();
  const DType type = split_ ? DType::kFp32 : kv_dtype_;
  auto* const base =
      split_ ? reinterpret_cast<std::byte*>(split_->queries().local()) : queries_.data();
  const std::int64_t stride = split_ ? split_->queries().stride() : heads * row_width_;
#pragma omp parallel for schedule(static) num_threads(context_.threads)
  for (std::int64_t i = 0; i < step_->absorbed_tokens * heads; ++i) {
    const float scale = step_->q_scales[i / heads];
    std::byte* const to = base + (i / heads * stride + i % heads * row_width_) * size_of(type);
    kernels::store_scaled(type, absorbed_.data() + i * config_.kv_lora_rank, config_.kv_lora_rank,
                          scale, to);
    const float* const rope = q_.data() + i * q_head_dim(config_) + config_.qk_nope_head_dim;
    kernels::store_scaled(type, rope, config_.qk_rope_head_dim, scale,
                          to + config_.kv_lora_rank * size_of(type));
  }
}

/// absorbed <- o, the attention of the absorbed queries to the rows of the cache; with a fast
/// combine their values are made already.
void Attention::attend(std::int64_t layer) {
  context_.bytes_read += rows_to_read_ * row_width_ * size_of(kv_dtype_);
  if (step_->absorbed.empty()) return;
  if (context_.sharding.fast_combine) {
    split_->run(cache_of(layer), context_.weights.layers[layer].attention.kv_b, values_);
  } else if (split_) {
    split_->run(cache_of(layer), absorbed_.data());
  } else if (!heads_.empty()) {
    decoder_.run(cache_of(layer), *results_);
  }
}

/// values[token, head] = W_UV o, for this rank's heads.
void Attention::project_values(const AttentionWeights& weights) {
  layers_.clear();
  for (std::int64_t h = 0; h < heads_.size(); ++h) {
    layers_.push_back({.weights = weights.kv_b,
                       .outputs = value_rows(config_, heads_.begin + h),
                       .rows = step_->absorbed_tokens,
                       .x = absorbed_.data() + h * config_.kv_lora_rank,
                       .x_stride = heads_.size() * config_.kv_lora_rank,
                       .y = values_.local() + h * config_.v_head_dim,
                       .y_stride = values_.stride()});
  }
  context_.linear(layers_);
}

void Attention::project_out(const AttentionWeights& weights, const float* values,
                            ColumnGather& out) {
  context_.linear({.weights = weights.o,
                   .outputs = out.columns(),
                   .rows = step_->tokens(),
                   .x = values,
                   .x_stride = weights.o.cols,
                   .y = out.local(),
                   .y_stride = out.stride()});
  add_bias(weights.o_bias, 0, step_->tokens(), out);
}

std::byte* Attention::cache_of(std::int64_t layer) {
  return cache_.data() + layer * (cache_.size() / context_.config.num_layers);
}

/// Whether the row of a token belongs into this rank's cache.
bool Attention::has_row(std::int64_t token) const {
  const ModelSharding& sharding = context_.sharding;
  return !sharding.splits_cache() ||
         sharding.cache_rank(step_->positions[token]) == context_.group.rank();
}

std::byte* Attention::cache_row(std::int64_t layer, std::int64_t token) {
  const std::int64_t position = step_->positions[token];
  const std::int64_t page = step_->page_tables[token][position / kPageTokens];
  return cache_of(layer) +
         (page * kPageTokens + position % kPageTokens) * row_width_ * size_of(kv_dtype_);
}

}  // namespace mla::dist
