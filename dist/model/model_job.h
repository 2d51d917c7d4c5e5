#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "core/sampler.h"
#include "dist/communicator.h"
#include "dist/model/model.h"
#include "dist/model/step_batch.h"

namespace mla::dist {

/// What to make of one row of logits.
struct RowRequest {
  SamplingParams sampling;
  SampleCounter counter;
  std::vector<std::int32_t> banned;   ///< tokens that may not be chosen
  std::optional<std::int32_t> given;  ///< the next token is known: only its logprob is wanted
  std::optional<std::int64_t> top_logprobs;  ///< none: no logprobs

  /// Whether the largest logit is all that it takes.
  bool is_plain() const {
    return sampling.temperature == 0 && banned.empty() && !given && !top_logprobs;
  }
};

/// What came of a row of logits.
struct RowChoice {
  std::int32_t token = 0;
  std::vector<TokenLogprob> logprobs;  ///< if wanted: the token's, then the likeliest
  bool failed = false;                 ///< the logits were no numbers; the rest has no meaning
};

/// A model that does on all ranks what rank 0 says.
///
///   rank 0         run(work):  step(...)  step(...)  ...
///   other ranks    run(work):  --------------------->    they follow, and do not call `work`
///
/// Rank 0 knows sequences, pages and sampling parameters; the others are sent what a step needs.
/// Rows of logits are shared by the ranks, each of which chooses the tokens of its own.
class ModelJob {
 public:
  /// Both must outlive it.
  ModelJob(const Communicator& world, Model& model) : world_(world), model_(model) {}

  /// Rank 0 does `work`, the others follow its steps until it is over. Collective.
  /// @throws CollectiveError on all ranks if `work` throws
  void run(const std::function<void()>& work);

  /// Computes `batch` and chooses a token for every row of logits, `rows` of them in the batch's
  /// order. On rank 0, within `work`.
  /// @throws InvalidArgument as Model::step does
  std::vector<RowChoice> step(const StepBatch& batch, std::span<const RowRequest> rows);

  /// Of the steps so far on this rank.
  const ModelWork& work() const { return model_.work(); }

 private:
  void stop();
  void follow();
  std::vector<RowChoice> compute(const StepBatch& batch, std::span<const RowRequest> rows);
  std::vector<RowChoice> choose_own(std::span<const RowRequest> rows);
  RowChoice choose(const RowRequest& row, std::span<const float> logits);
  std::span<const float> allowed(const RowRequest& row, std::span<const float> logits);

  const Communicator& world_;
  Model& model_;
  Sampler sampler_;
  std::vector<float> allowed_;
};

}  // namespace mla::dist
