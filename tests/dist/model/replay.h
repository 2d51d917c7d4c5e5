#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/model_config.h"
#include "core/model_weights.h"
#include "dist/model/model.h"

namespace mla::dist {

/// A model of tests/data/models, or of any folder; read once.
struct TestModel {
  ModelConfig config;
  ModelWeights weights;
  std::string folder;
};
const TestModel& tiny_model(std::string_view family);
const TestModel& demo_model();

using Sequences = std::vector<std::vector<std::int32_t>>;
Sequences random_sequences(const TestModel& model, const std::vector<std::int64_t>& lengths);

/// New tokens of a sequence: positions of its tokens.
struct Part {
  std::int64_t sequence = 0;
  Range positions;
};

/// Takes logits of one position.
using TakeLogits =
    std::function<void(std::int64_t sequence, std::int64_t position, std::span<const float>)>;

/// Feeds known sequences to a model in any order of steps. Sequence s lives in group s % groups;
/// pages are dealt out in an order of no meaning.
class Replay {
 public:
  Replay(const Communicator& comm, const TestModel& model, const ModelSharding& sharding,
         int threads, DType kv_dtype, Sequences sequences);

  /// Positions of a sequence before `end` take the MHA form.
  void set_prefill_end(std::int64_t sequence, std::int64_t end) { prefill_ends_[sequence] = end; }

  /// Lets a sequence use another's pages for its first `tokens`, whole pages.
  void share_prefix(std::int64_t from, std::int64_t to, std::int64_t tokens);

  /// One step, with logits of all positions. `take` gets those of this rank's rows.
  void step(const std::vector<Part>& parts, const TakeLogits& take);

  Model& model() { return model_; }

 private:
  void ensure_pages(std::int64_t sequence, std::int64_t tokens);

  const Communicator& comm_;
  ModelSharding sharding_;
  Sequences sequences_;
  std::vector<std::int64_t> prefill_ends_;
  std::vector<std::vector<std::int32_t>> pages_;
  std::vector<std::vector<std::int32_t>> free_pages_;  // by group, or by rank
  Model model_;
};

}  // namespace mla::dist
