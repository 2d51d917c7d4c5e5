#include "tests/dist/model/replay.h"

#include <algorithm>
#include <random>

#include "proto/checkpoint.h"
#include "proto/model_config.h"

namespace mla::dist {
namespace {

constexpr std::int64_t kPages = 64;

const TestModel& load(const std::string& folder) {
  static std::map<std::string, TestModel> models;
  const auto found = models.find(folder);
  if (found != models.end()) return found->second;
  TestModel model{proto::read_model_config(folder), {}, folder};
  model.weights = proto::load_weights(model.config, folder);
  return models.emplace(folder, std::move(model)).first->second;
}

ModelOptions options_for(const ModelSharding& sharding, int threads, DType kv_dtype,
                         const Sequences& sequences) {
  std::int64_t tokens = 0;
  std::int64_t longest = 0;
  for (const auto& s : sequences) {
    tokens += static_cast<std::int64_t>(s.size());
    longest = std::max(longest, static_cast<std::int64_t>(s.size()));
  }
  return {.sharding = sharding,
          .limits = {.kv_dtype = kv_dtype,
                     .num_pages = kPages,
                     .max_tokens = tokens,
                     .max_logits = tokens},
          .threads = threads,
          .longest_context = longest};
}

}  // namespace

const TestModel& tiny_model(std::string_view family) {
  return load(std::string(MLA_SOURCE_DIR "/tests/data/models/").append(family));
}

const TestModel& demo_model() {
  return load(MLA_SOURCE_DIR "/launch/demo/model");
}

Sequences random_sequences(const TestModel& model, const std::vector<std::int64_t>& lengths) {
  std::mt19937 random(11);
  Sequences sequences;
  for (const std::int64_t length : lengths) {
    auto& s = sequences.emplace_back();
    for (std::int64_t i = 0; i < length; ++i) {
      s.push_back(static_cast<std::int32_t>(random() % model.config.vocab_size));
    }
  }
  return sequences;
}

Replay::Replay(const Communicator& comm, const TestModel& model, const ModelSharding& sharding,
               int threads, DType kv_dtype, Sequences sequences)
    : comm_(comm),
      sharding_(sharding),
      sequences_(std::move(sequences)),
      prefill_ends_(sequences_.size()),
      pages_(sequences_.size()),
      free_pages_(static_cast<std::size_t>(sharding.ranks)),
      model_(comm, model.config, model.weights,
             options_for(sharding, threads, kv_dtype, sequences_)) {
  std::mt19937 random(7);
  for (auto& pages : free_pages_) {
    for (std::int32_t p = 0; p < kPages; ++p) pages.push_back(p);
    std::shuffle(pages.begin(), pages.end(), random);
  }
}

void Replay::share_prefix(std::int64_t from, std::int64_t to, std::int64_t tokens) {
  pages_[to].assign(pages_[from].begin(), pages_[from].begin() + tokens / kPageTokens);
}

void Replay::ensure_pages(std::int64_t sequence, std::int64_t tokens) {
  auto& pages = pages_[sequence];
  while (static_cast<std::int64_t>(pages.size()) * kPageTokens < tokens) {
    const std::int64_t position = static_cast<std::int64_t>(pages.size()) * kPageTokens;
    auto& free = free_pages_[sharding_.splits_cache() ? sharding_.cache_rank(position)
                                                      : sequence % sharding_.groups()];
    pages.push_back(free.back());
    free.pop_back();
  }
}

void Replay::step(const std::vector<Part>& parts, const TakeLogits& take) {
  StepBatch batch;
  std::vector<std::pair<std::int64_t, std::int64_t>> rows;
  for (const Part& part : parts) {
    ensure_pages(part.sequence, part.positions.end);
    const std::span<const std::int32_t> tokens = sequences_[part.sequence];
    batch.sequences.push_back(
        {.group = static_cast<int>(part.sequence % sharding_.groups()),
         .tokens = tokens.subspan(part.positions.begin, part.positions.size()),
         .start = part.positions.begin,
         .prefill_end = prefill_ends_[part.sequence],
         .pages = pages_[part.sequence],
         .logits = WantLogits::kAll});
    for (std::int64_t p = part.positions.begin; p < part.positions.end; ++p) {
      rows.emplace_back(part.sequence, p);
    }
  }
  model_.step(batch);
  const std::span<const float> logits = model_.logits();
  const Range own = even_part(model_.num_logits(), comm_.size(), comm_.rank());
  const std::size_t vocab =
      logits.empty() ? 0 : logits.size() / static_cast<std::size_t>(own.size());
  for (std::int64_t i = own.begin; i < own.end; ++i) {
    take(rows[i].first, rows[i].second,
         logits.subspan(static_cast<std::size_t>(i - own.begin) * vocab, vocab));
  }
}

}  // namespace mla::dist
