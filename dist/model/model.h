#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/aligned_buffer.h"
#include "core/model_config.h"
#include "core/model_weights.h"
#include "dist/communicator.h"
#include "dist/model/attention.h"
#include "dist/model/experts.h"
#include "dist/model/gather.h"
#include "dist/model/group_step.h"
#include "dist/model/head.h"
#include "dist/model/mlp.h"
#include "dist/model/rank_context.h"
#include "dist/model/sharding.h"
#include "dist/model/step_batch.h"

namespace mla::dist {

/// How a job computes with a model.
struct ModelOptions {
  ModelSharding sharding;
  ModelLimits limits;
  int threads = 1;
  std::string backend = "auto";
  std::int64_t longest_context = 0;  ///< of the job: chooses LongRoPE's frequencies
};

/// What a part of the model took on this rank in the steps so far, with its messages.
struct PartWork {
  double seconds = 0;
  std::int64_t bytes = 0;  ///< of weights and of rows of the cache, each read once in a step
};

/// By part. A layer's shared experts are among its experts.
struct ModelWork {
  PartWork attention;
  PartWork mlp;
  PartWork experts;
  PartWork head;
  /// Sent by this rank so far, where the cache is split: partials, and the outputs made of them.
  std::int64_t partial_bytes_sent = 0;

  std::int64_t bytes() const { return attention.bytes + mlp.bytes + experts.bytes + head.bytes; }
};

/// A model on all ranks of a job.
///
/// The law: the logits of a token have the same bits for any number of ranks, threads, sharding and
/// batch, and for any cut of a prompt into steps; with one backend. Every element of every matrix
/// is computed wholly on one rank, by sums in an order of their own, and ranks exchange elements,
/// never sums.
class Model {
 public:
  /// Makes this rank's rows of the weights ready. `config` and `weights` must outlive the model.
  /// Collective.
  /// @throws CollectiveError for weights that are not finite, shapes that the engine cannot do, and
  ///         limits that are not positive
  Model(const Communicator& world, const ModelConfig& config, const ModelWeights& weights,
        const ModelOptions& options);

  /// Computes the new tokens, whose rows are then in the cache, and the logits wanted. The batch is
  /// the same on all ranks. Collective.
  /// @throws InvalidArgument on all ranks for a batch that exceeds the limits or names tokens or
  ///         pages that do not exist; the cache is then unchanged.
  /// @throws FormatError on all ranks if a row of the embedding is not finite.
  void step(const StepBatch& batch);

  /// Of the last step, as `Head` describes them. Collective.
  std::span<const LargestLogit> largest() { return head_.largest(); }
  std::span<const float> logits() { return head_.logits(); }
  std::int64_t num_logits() const { return head_.rows(); }

  const ModelWork& work() const { return work_; }

 private:
  RankContext prepared_context();
  void prepare_embedding(const StepBatch& batch);
  void embed();
  void norm(const std::vector<float>& weight);
  void add_delta();
  void attend(std::int64_t layer);
  void feed_forward(std::int64_t layer);

  const Communicator& world_;
  const ModelConfig& config_;
  const ModelWeights& weights_;
  ModelOptions options_;
  Communicator group_;
  AlignedBuffer<std::byte> linear_workspace_;
  std::int64_t bytes_read_ = 0;
  RankContext context_;
  std::span<const float> inv_freq_;
  std::vector<bool> embedded_;  // [vocab]: whether the embedding's row is ready
  ModelWork work_;
  GroupStep step_;

  Attention attention_;
  std::optional<Mlp> mlp_;
  std::optional<Experts> experts_;
  Head head_;
  AlignedBuffer<float> hidden_;    // [tokens, hidden_size]: what blocks add to
  AlignedBuffer<float> normed_;    // [tokens, hidden_size]: what they read
  AlignedBuffer<float> shortcut_;  // [tokens, hidden_size]: experts that are added a layer later
  ColumnGather delta_;             // [tokens, hidden_size]: what they put out
};

}  // namespace mla::dist
