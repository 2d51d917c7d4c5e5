#include "dist/model/head.h"

#include <algorithm>

#include "kernels/activation.h"

namespace mla::dist {

Head::Head(const RankContext& context) : context_(context) {
  const int ranks = context.sharding.ranks;
  const std::int64_t rows = context.limits.max_logits;
  const std::int64_t hidden = context.config.hidden_size;
  const std::int64_t vocab = context.config.vocab_size;
  const std::int64_t own_vocab = vocabulary_of(context.world.rank()).size();
  const std::int64_t own_rows = ceil_div(rows, ranks);
  normed_ = AlignedBuffer<float>(rows * hidden);
  hidden_ = AlignedBuffer<float>(rows * hidden);
  logits_ = AlignedBuffer<float>(rows * own_vocab);
  to_send_ = AlignedBuffer<float>(rows * own_vocab);
  received_ = AlignedBuffer<float>(own_rows * vocab);
  whole_ = AlignedBuffer<float>(own_rows * vocab);
}

std::int64_t Head::buffer_bytes(const ModelConfig& config, const ModelLimits& limits, int ranks) {
  const std::int64_t own_rows = ceil_div(limits.max_logits, ranks);
  return 4 *
         (limits.max_logits * (2 * config.hidden_size + 2 * ceil_div(config.vocab_size, ranks)) +
          own_rows * 2 * config.vocab_size);
}

void Head::begin(const StepBatch& batch) {
  const ModelSharding& sharding = context_.sharding;
  std::vector<std::int64_t> first(static_cast<std::size_t>(sharding.groups()) + 1);
  for (const StepSequence& s : batch.sequences) first[s.group + 1] += logits_of(s);
  const std::vector<std::int64_t> group_rows(first.begin() + 1, first.end());
  for (int g = 0; g < sharding.groups(); ++g) first[g + 1] += first[g];

  rows_.clear();
  for (const StepSequence& s : batch.sequences) {
    for (std::int64_t i = 0; i < logits_of(s); ++i) rows_.push_back(first[s.group]++);
  }
  rank_counts_.clear();
  for (int r = 0; r < sharding.ranks; ++r) {
    rank_counts_.push_back(group_part(sharding, r, group_rows[sharding.group_of(r)]).size());
  }
  contributed_ = context_.part(group_rows[sharding.group_of(context_.world.rank())]);
}

void Head::run(std::span<const std::int64_t> wanted, const float* hidden) {
  const ModelConfig& config = context_.config;
  const std::int64_t width = config.hidden_size;
  float* const normed = context_.sharding.groups() == 1 ? hidden_.data() : normed_.data();
  for (std::size_t i = 0; i < wanted.size(); ++i) {
    float* const to = normed + static_cast<std::int64_t>(i) * width;
    kernels::rms_norm({hidden + wanted[i] * width, static_cast<std::size_t>(width)},
                      context_.weights.norm.data(), config.norm_eps, to);
    for (std::int64_t c = 0; c < width; ++c) to[c] *= config.logits_scale;
  }
  if (context_.sharding.groups() > 1) {
    gather_rows(context_.world, rank_counts_, width, normed + contributed_.begin * width,
                hidden_.data());
  }
  const Range own = vocabulary_of(context_.world.rank());
  context_.linear({.weights = context_.weights.head,
                   .outputs = own,
                   .rows = rows(),
                   .x = hidden_.data(),
                   .x_stride = width,
                   .y = logits_.data(),
                   .y_stride = own.size()});
}

std::span<const LargestLogit> Head::largest() {
  const Range own = vocabulary_of(context_.world.rank());
  const auto own_vocab = static_cast<std::size_t>(own.size());
  const auto count = static_cast<std::size_t>(rows());
  std::vector<LargestLogit> mine(count);
  for (std::size_t i = 0; i < count; ++i) {
    mine[i] = largest_logit({logits_.data() + rows_[i] * own_vocab, own_vocab},
                            static_cast<std::int32_t>(own.begin));
  }
  std::vector<LargestLogit> of_ranks(count * static_cast<std::size_t>(context_.sharding.ranks));
  context_.world.all_gather(std::span<const LargestLogit>(mine), std::span(of_ranks));
  largest_.assign(count, {});
  for (std::size_t i = 0; i < of_ranks.size(); ++i) {
    largest_[i % count] = larger(largest_[i % count], of_ranks[i]);
  }
  return largest_;
}

std::span<const float> Head::logits() {
  const int ranks = context_.sharding.ranks;
  const std::int64_t vocab = context_.config.vocab_size;
  const Range own = vocabulary_of(context_.world.rank());
  const Range own_rows = even_part(rows(), ranks, context_.world.rank());
  std::vector<std::int64_t> sent;
  std::vector<std::int64_t> received;
  for (int r = 0; r < ranks; ++r) {
    sent.push_back(even_part(rows(), ranks, r).size() * own.size());
    received.push_back(own_rows.size() * vocabulary_of(r).size());
  }
  for (std::int64_t i = 0; i < rows(); ++i) {
    std::copy_n(logits_.data() + rows_[i] * own.size(), own.size(),
                to_send_.data() + i * own.size());
  }
  exchange_floats(context_.world, sent, to_send_.data(), received, received_.data());
  const float* from = received_.data();
  for (int r = 0; r < ranks; ++r) {
    const Range part = vocabulary_of(r);
    for (std::int64_t i = 0; i < own_rows.size(); ++i, from += part.size()) {
      std::copy_n(from, part.size(), whole_.data() + i * vocab + part.begin);
    }
  }
  return {whole_.data(), static_cast<std::size_t>(own_rows.size() * vocab)};
}

}  // namespace mla::dist
