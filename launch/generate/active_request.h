#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/sampler.h"
#include "core/stop_watcher.h"
#include "dist/model/model_job.h"
#include "dist/stopwatch.h"
#include "proto/completions.h"
#include "proto/tokenizer.h"

namespace mla::launch {

/// A request whose answer is being written.
class ActiveRequest {
 public:
  /// `tokenizer` may be null: then there is no text, only tokens.
  ActiveRequest(std::string custom_id, proto::CompletionRequest request, std::int64_t prompt_tokens,
                std::span<const std::int32_t> eos_ids, SampleCounter first,
                const proto::Tokenizer* tokenizer);

  /// What to ask of the logits that give its next token.
  dist::RowRequest row() const;

  /// Takes the next token; returns the text that is certain now.
  std::string take(const dist::RowChoice& choice);

  /// Tokens that it has been given.
  std::int64_t tokens() const { return stop_.tokens(); }
  bool finished() const { return stop_.finished(); }
  /// The answer, once finished.
  const proto::Completion& completion() const { return completion_; }

  const std::string& custom_id() const { return custom_id_; }
  const proto::CompletionRequest& request() const { return request_; }

  /// Since it was started; until its first token.
  double seconds() const { return watch_.seconds(); }
  double first_token_seconds() const { return first_token_seconds_; }

 private:
  void report_logprobs(const dist::RowChoice& choice);

  std::string custom_id_;
  proto::CompletionRequest request_;
  SampleCounter counter_;
  StopWatcher stop_;
  const proto::Tokenizer* tokenizer_;
  std::optional<proto::TextStream> stream_;
  proto::Completion completion_;
  dist::Stopwatch watch_;
  double first_token_seconds_ = 0;
};

}  // namespace mla::launch
