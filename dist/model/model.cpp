#include "dist/model/model.h"

#include <algorithm>

#include "core/error.h"
#include "core/rope.h"
#include "dist/model/check_step.h"
#include "dist/model/rank_memory.h"
#include "dist/stopwatch.h"
#include "kernels/activation.h"
#include "kernels/weight_rows.h"

namespace mla::dist {
namespace {

/// Adds to a part's work what happens between its construction and its end.
class PartWatch {
 public:
  PartWatch(PartWork& part, const std::int64_t& bytes_read)
      : part_(part), bytes_read_(bytes_read), before_(bytes_read) {}
  ~PartWatch() {
    part_.seconds += watch_.seconds();
    part_.bytes += bytes_read_ - before_;
  }
  PartWatch(const PartWatch&) = delete;
  PartWatch& operator=(const PartWatch&) = delete;

 private:
  PartWork& part_;
  const std::int64_t& bytes_read_;
  std::int64_t before_;
  Stopwatch watch_;
};

}  // namespace

Model::Model(const Communicator& world, const ModelConfig& config, const ModelWeights& weights,
             const ModelOptions& options)
    : world_(world),
      config_(config),
      weights_(weights),
      options_(options),
      group_(world.split(options.sharding.group_of(world.rank()))),
      context_(prepared_context()),
      inv_freq_(inverse_frequencies(config.rope, options.longest_context)),
      embedded_(static_cast<std::size_t>(config.vocab_size)),
      attention_(context_),
      head_(context_),
      hidden_(options.limits.max_tokens * config.hidden_size),
      normed_(options.limits.max_tokens * config.hidden_size),
      delta_(group_, options.limits.max_tokens, config.hidden_size) {
  if (config.intermediate_size > 0) {
    mlp_.emplace(context_, group_, options.limits.max_tokens, config.intermediate_size);
  }
  if (config.moe.num_experts > 0) experts_.emplace(context_);
  if (config.moe.shortcut) {
    shortcut_ = AlignedBuffer<float>(options.limits.max_tokens * config.hidden_size);
  }
}

RankContext Model::prepared_context() {
  const kernels::HostBackend* backend = nullptr;
  world_.together([&] {
    check_options(config_, options_.sharding, options_.limits, world_.size());
    backend = &kernels::find_host_backend(options_.backend);
    linear_workspace_ = AlignedBuffer<std::byte>(
        linear_workspace_bytes(config_, options_.sharding, options_.limits, *backend));
    if (weights_.storage == nullptr) return;
    for (const UsedRows& used : used_rows(config_, weights_, options_.sharding, world_.rank())) {
      weights_.storage->prepare(used.matrix, used.rows);
    }
  });
  return {.config = config_,
          .weights = weights_,
          .sharding = options_.sharding,
          .limits = options_.limits,
          .world = world_,
          .group = group_,
          .backend = *backend,
          .threads = options_.threads,
          .linear_workspace = linear_workspace_.span(),
          .bytes_read = bytes_read_,
          .partial_bytes_sent = work_.partial_bytes_sent};
}

void Model::step(const StepBatch& batch) {
  check_step(batch, config_, options_.sharding, options_.limits);
  prepare_embedding(batch);
  make_group_step(config_, inv_freq_, batch, options_.sharding.group_of(world_.rank()), step_);
  attention_.begin(step_);
  if (experts_) experts_->begin(tokens_of_groups(batch, options_.sharding.groups()));
  head_.begin(batch);
  embed();
  for (std::int64_t layer = 0; layer < config_.num_layers; ++layer) {
    attend(layer);
    feed_forward(layer);
  }
  const PartWatch watch(work_.head, bytes_read_);
  head_.run(step_.logits, hidden_.data());
}

void Model::attend(std::int64_t layer) {
  const PartWatch watch(work_.attention, bytes_read_);
  norm(weights_.layers[layer].attention_norm);
  attention_.run(layer, normed_.data(), delta_);
  add_delta();
}

void Model::feed_forward(std::int64_t layer) {
  const LayerWeights& weights = weights_.layers[layer];
  const std::int64_t tokens = step_.tokens();
  const bool ends_shortcut = config_.moe.shortcut && layer % 2 != 0;
  norm(weights.mlp_norm);
  if (has_experts(config_, layer)) {
    const PartWatch watch(work_.experts, bytes_read_);
    experts_->run(weights.moe, tokens, normed_.data(), delta_);
    if (config_.moe.shortcut) {
      std::copy_n(delta_.gather(tokens), tokens * config_.hidden_size, shortcut_.data());
    } else {
      add_delta();
    }
  }
  if (has_dense_mlp(config_, layer)) {
    const PartWatch watch(work_.mlp, bytes_read_);
    mlp_->run(weights.mlp, tokens, normed_.data(), delta_);
    add_delta();
  }
  if (ends_shortcut) {
    for (std::int64_t i = 0; i < tokens * config_.hidden_size; ++i) {
      hidden_.data()[i] += shortcut_.data()[i];
    }
  }
}

/// Rows of the embedding are made ready when their token first occurs, on all ranks at the same
/// time, so that all meet the same error.
void Model::prepare_embedding(const StepBatch& batch) {
  if (weights_.storage == nullptr) return;
  for (const StepSequence& s : batch.sequences) {
    for (const std::int32_t id : s.tokens) {
      if (embedded_[id]) continue;
      weights_.storage->prepare(weights_.embedding, {id, id + 1});
      embedded_[id] = true;
    }
  }
}

void Model::embed() {
#pragma omp parallel for schedule(static) num_threads(options_.threads) if (step_.tokens() > 1)
  for (std::int64_t t = 0; t < step_.tokens(); ++t) {
    float* const row = hidden_.data() + t * config_.hidden_size;
    kernels::widen_row(weights_.embedding, step_.ids[t], row);
    for (std::int64_t c = 0; c < config_.hidden_size; ++c) row[c] *= config_.embedding_scale;
  }
}

/// normed = norm(hidden) * weight
void Model::norm(const std::vector<float>& weight) {
  const auto width = static_cast<std::size_t>(config_.hidden_size);
#pragma omp parallel for schedule(static) num_threads(options_.threads) if (step_.tokens() > 1)
  for (std::int64_t t = 0; t < step_.tokens(); ++t) {
    kernels::rms_norm({hidden_.data() + t * width, width}, weight.data(), config_.norm_eps,
                      normed_.data() + t * width);
  }
}

/// hidden += residual_scale * what the last block put out
void Model::add_delta() {
  const float* const delta = delta_.gather(step_.tokens());
  const std::int64_t width = config_.hidden_size;
#pragma omp parallel for schedule(static) num_threads(options_.threads) if (step_.tokens() > 1)
  for (std::int64_t t = 0; t < step_.tokens(); ++t) {
    float* const to = hidden_.data() + t * width;
    const float* const from = delta + t * width;
    for (std::int64_t c = 0; c < width; ++c) to[c] += config_.residual_scale * from[c];
  }
}

}  // namespace mla::dist
