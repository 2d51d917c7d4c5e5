#include "launch/generate/active_request.h"

#include <utility>

namespace mla::launch {

ActiveRequest::ActiveRequest(std::string custom_id, proto::CompletionRequest request,
                             std::int64_t prompt_tokens, std::span<const std::int32_t> eos_ids,
                             SampleCounter first, const proto::Tokenizer* tokenizer)
    : custom_id_(std::move(custom_id)),
      request_(std::move(request)),
      counter_(first),
      stop_(request_.stop, eos_ids),
      tokenizer_(tokenizer) {
  if (tokenizer != nullptr) stream_.emplace(*tokenizer);
  completion_.prompt_tokens = prompt_tokens;
  if (request_.top_logprobs) completion_.logprobs.emplace();
}

dist::RowRequest ActiveRequest::row() const {
  const auto banned = stop_.banned();
  return {.sampling = request_.sampling,
          .counter = counter_,
          .banned = {banned.begin(), banned.end()},
          .given = {},
          .top_logprobs = request_.top_logprobs};
}

std::string ActiveRequest::take(const dist::RowChoice& choice) {
  if (tokens() == 0) first_token_seconds_ = seconds();
  ++counter_.position;
  completion_.token_ids.push_back(choice.token);
  report_logprobs(choice);
  std::string certain = stop_.push(choice.token, stream_ ? stream_->push(choice.token) : "");
  if (stop_.finished()) {
    certain += stop_.finish(stream_ ? stream_->finish() : "");
    completion_.finish_reason = stop_.reason();
  }
  completion_.text += certain;
  return certain;
}

void ActiveRequest::report_logprobs(const dist::RowChoice& choice) {
  if (!completion_.logprobs || choice.logprobs.empty()) return;
  const auto bytes = [&](std::int32_t token) {
    return tokenizer_ == nullptr ? std::string() : std::string(tokenizer_->token_bytes(token));
  };
  proto::ReportedToken& token = completion_.logprobs->emplace_back();
  token.bytes = bytes(choice.token);
  token.logprob = choice.logprobs.front().logprob;
  for (const TokenLogprob& top : std::span(choice.logprobs).subspan(1)) {
    token.top.push_back({.bytes = bytes(top.id), .logprob = top.logprob});
  }
}

}  // namespace mla::launch
