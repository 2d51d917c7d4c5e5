#include "launch/generate/generation.h"

#include <algorithm>
#include <utility>

#include "core/error.h"
#include "dist/stopwatch.h"

namespace mla::launch {

Generation::Generation(const ModelConfig& config, const TextTools& tools,
                       const RequestSource& requests, const proto::CompletionJob& job,
                       const Settings& settings, Scheduler& scheduler, dist::ModelJob& model,
                       Callbacks callbacks)
    : config_(config),
      tools_(tools),
      requests_(requests),
      job_(job),
      settings_(settings),
      scheduler_(scheduler),
      model_(model),
      callbacks_(std::move(callbacks)) {}

void Generation::run(const std::function<bool(std::int64_t request)>& is_answered) {
  while (true) {
    admit(is_answered);
    if (active_.empty() || callbacks_.should_stop()) return;
    step();
  }
}

void Generation::admit(const std::function<bool(std::int64_t request)>& is_answered) {
  // One request is tokenized ahead of its turn for each that runs.
  const std::int64_t ahead = 1 + scheduler_.num_running();
  while (next_ < requests_.size && scheduler_.num_waiting() < ahead) {
    const std::int64_t index = next_++;
    if (is_answered(index)) continue;
    const proto::CompletionLine line = requests_.read(index);
    try {
      start(index, line);
    } catch (const proto::RequestError& error) {
      ++stats_.answered;
      ++stats_.failed;
      callbacks_.answer(index, proto::error_line(index, line.custom_id, error), &error);
    }
  }
}

/// @throws proto::RequestError for a request that cannot run
void Generation::start(std::int64_t index, const proto::CompletionLine& line) {
  if (const auto* error = std::get_if<proto::RequestError>(&line.request)) throw *error;
  proto::CompletionRequest request = std::get<proto::CompletionRequest>(line.request);
  std::vector<std::int32_t> tokens = tools_.tokens(request.prompt);
  const std::int64_t length = std::ssize(tokens);
  const std::int64_t most = std::min(settings_.max_context, scheduler_.max_sequence_tokens());
  if (length == 0) throw proto::RequestError{.message = "prompt: no tokens; expected at least one"};
  if (length >= most) {
    throw proto::RequestError{.message = "prompt: " + std::to_string(length) +
                                         " tokens; expected fewer than the context of " +
                                         std::to_string(most)};
  }
  const auto unknown = std::find_if(tokens.begin(), tokens.end(), [&](std::int32_t id) {
    return id < 0 || id >= config_.vocab_size;
  });
  if (unknown != tokens.end()) {
    throw proto::RequestError{.message = "prompt: token " + std::to_string(*unknown) +
                                         "; expected 0 to " +
                                         std::to_string(config_.vocab_size - 1)};
  }
  request.stop.max_tokens = std::min(request.stop.max_tokens, most - length);
  const SampleCounter counter =
      request.seed
          ? SampleCounter{.seed = *request.seed}
          : SampleCounter{.seed = settings_.seed, .stream = static_cast<std::uint64_t>(index) + 1};
  active_.try_emplace(index, line.custom_id, std::move(request), length,
                      std::span(config_.eos_token_ids), counter, tools_.tokenizer());
  scheduler_.add(index, std::move(tokens));
}

void Generation::step() {
  const dist::Stopwatch watch;
  const std::int64_t bytes_before = model_.work().bytes();
  dist::StepBatch batch;
  std::vector<std::int64_t> sampled;
  std::vector<dist::RowRequest> rows;
  std::int64_t tokens = 0;
  for (const ScheduledWork& work : scheduler_.next_step()) {
    const auto all = scheduler_.tokens(work.sequence);
    batch.sequences.push_back(
        {.group = work.group,
         .tokens = all.subspan(work.positions.begin, work.positions.size()),
         .start = work.positions.begin,
         .prefill_end = work.prefill_end,
         .pages = scheduler_.pages(work.sequence),
         .logits = work.samples ? dist::WantLogits::kLast : dist::WantLogits::kNone});
    tokens += work.positions.size();
    if (!work.samples) continue;
    sampled.push_back(work.sequence);
    rows.push_back(active_.at(work.sequence).row());
  }
  const std::vector<dist::RowChoice> choices = model_.step(batch, rows);
  // A token that was sampled before is not one of a prompt.
  const auto generating = std::count_if(sampled.begin(), sampled.end(), [&](std::int64_t index) {
    return active_.at(index).tokens() > 0;
  });
  stats_.prompt_tokens += tokens - generating;
  stats_.generated_tokens += std::ssize(sampled);
  PhaseStats& phase = tokens == generating ? stats_.decode : stats_.prefill;
  phase.add({.steps = 1,
             .tokens = tokens,
             .seconds = watch.seconds(),
             .bytes = model_.work().bytes() - bytes_before});
  for (std::size_t i = 0; i < sampled.size(); ++i) take(sampled[i], choices[i]);
}

void Generation::take(std::int64_t index, const dist::RowChoice& choice) {
  static const proto::RequestError kNoNumbers{
      .message = "logits: not numbers; expected finite ones", .status = 500};
  ActiveRequest& request = active_.at(index);
  std::string line;
  if (choice.failed) {
    ++stats_.failed;
    line = proto::error_line(index, request.custom_id(), kNoNumbers);
  } else {
    callbacks_.text(index, request.take(choice));
    if (!request.finished()) {
      scheduler_.append(index, choice.token);
      return;
    }
    stats_.first_token_seconds.push_back(static_cast<float>(request.first_token_seconds()));
    if (request.tokens() > 1) {
      const double rest = request.seconds() - request.first_token_seconds();
      stats_.token_seconds.push_back(
          static_cast<float>(rest / static_cast<double>(request.tokens() - 1)));
    }
    line = proto::completion_line(job_, index, request.custom_id(), request.request().endpoint,
                                  request.completion());
  }
  ++stats_.answered;
  scheduler_.remove(index);
  active_.erase(index);
  callbacks_.answer(index, line, choice.failed ? &kNoNumbers : nullptr);
}

}  // namespace mla::launch
