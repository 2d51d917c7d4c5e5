#include "launch/generate/generate_job.h"

#include <algorithm>
#include <cstdio>
#include <optional>
#include <utility>

#include <spdlog/spdlog.h>

#include "core/scheduler.h"
#include "dist/activity.h"
#include "dist/stopwatch.h"
#include "dist/watchdog.h"
#include "launch/affinity.h"
#include "launch/generate/answer_journal.h"
#include "launch/generate/generation.h"
#include "launch/generate/job_header.h"
#include "launch/generate/loaded_model.h"
#include "launch/generate/report.h"
#include "launch/read_rate.h"
#include "launch/stop_request.h"
#include "launch/tables.h"
#include "proto/file_io.h"

namespace mla::launch {
namespace {

proto::CompletionLine prompt_line(const GenerateOptions& options) {
  proto::CompletionRequest request = options.defaults;
  request.prompt = *options.prompt;
  if (options.chat) {
    request.endpoint = proto::Endpoint::kChat;
    request.prompt = std::vector<proto::ChatMessage>{{.role = "user", .content = *options.prompt}};
  }
  return {.custom_id = "prompt", .request = std::move(request)};
}

/// What rank 0 has for the job.
struct RootContext {
  const GenerateOptions& options;
  LoadedModel& model;
  const TextTools& tools;
  const RequestSource& requests;
  const StopRequest& stop_request;
  const dist::Stopwatch& job_watch;
  AnswerJournal* journal;  // null: text goes to standard output
  double read_rate;        // bytes per second; 0: not measured
};

/// Says between steps whether to leave the rest undone.
class StopRule {
 public:
  explicit StopRule(const RootContext& context)
      : context_(context), asked_at_(context.job_watch.seconds()) {}

  bool should_stop() {
    const double now = context_.job_watch.seconds();
    const double step_seconds = now - std::exchange(asked_at_, now);
    const double hours = context_.options.max_hours;
    return context_.stop_request.has_come() ||
           (hours > 0 && now + step_seconds > hours * kSecondsPerHour);
  }

 private:
  const RootContext& context_;
  double asked_at_;  // seconds of the job's watch
};

/// Puts the output together, or keeps what is there for the next run.
ExitCode finish(const RootContext& context, std::int64_t answered, std::int64_t failed) {
  const bool is_done = answered == context.requests.size;
  dist::enter(dist::Phase::kWrite);
  if (context.journal == nullptr) {
    print_text("\n");
  } else if (is_done) {
    context.journal->write_output();
  } else {
    context.journal->sync();
  }
  if (!is_done) {
    spdlog::warn("stopped with {} of {} requests done{}", answered, context.requests.size,
                 context.journal != nullptr ? "; go on with --resume" : "");
    return ExitCode::kStopped;
  }
  return failed == 0 ? ExitCode::kDone : ExitCode::kSomeRequestsFailed;
}

/// What rank 0 does while the others follow.
ExitCode generate(const RootContext& context) {
  const GenerateOptions& options = context.options;
  const dist::ModelOptions& model_options = context.model.options();
  AnswerJournal* const journal = context.journal;
  Scheduler scheduler({.groups = model_options.sharding.groups(),
                       .pages_per_group = model_options.limits.num_pages,
                       .page_tokens = dist::kPageTokens,
                       .max_step_tokens = model_options.limits.max_tokens,
                       .max_running = model_options.limits.max_logits,
                       .share_prefixes = options.share_prefixes,
                       .prefill_block = dist::kPrefillBlock});
  const proto::CompletionJob job{.model = options.model.name, .created = 0};
  std::int64_t answered = journal != nullptr ? journal->size() : 0;
  std::int64_t failed = journal != nullptr ? journal->num_failed() : 0;
  StopRule rule(context);
  GenerationProgress progress(context.requests.size, !options.quiet && journal != nullptr);
  Generation generation(
      context.model.config(), context.tools, context.requests, job,
      {.max_context = model_options.longest_context, .seed = options.model.seed}, scheduler,
      context.model.job(),
      {.answer =
           [&](std::int64_t request, std::string_view line, const proto::RequestError* error) {
             const bool has_failed = error != nullptr;
             if (journal != nullptr) {
               journal->keep(request, line, has_failed);
             } else if (has_failed) {
               throw Error(ExitCode::kBadInput, error->message);
             }
             ++answered;
             failed += has_failed ? 1 : 0;
           },
       .text =
           [&](std::int64_t, std::string_view text) {
             if (journal == nullptr) print_text(text);
           },
       .should_stop =
           [&] {
             progress.report(answered, generation.stats().generated_tokens);
             return rule.should_stop();
           }});
  generation.run(
      [&](std::int64_t request) { return journal != nullptr && journal->contains(request); });
  const ExitCode code = finish(context, answered, failed);
  if (!options.quiet) print_generation(generation.stats(), scheduler, context.read_rate);
  return code;
}

}  // namespace

ExitCode run_generate(const dist::Communicator& comm, const GenerateOptions& options) {
  const StopRequest stop_request;
  const dist::Stopwatch watch;
  const int threads = choose_threads(comm, options.model.threads);
  const bool talks = comm.rank() == 0 && !options.quiet;
  const Placement placement = survey_placement(comm, threads);
  bind_threads(comm, threads);
  std::optional<dist::Watchdog> watchdog;
  if (comm.size() > 1) watchdog.emplace(comm, options.timeout_seconds);

  const double reads = options.quiet ? 0 : read_rate(comm, threads);
  dist::enter(dist::Phase::kLoad);
  const dist::Stopwatch load_watch;
  std::optional<TextTools> tools;
  std::optional<proto::CompletionFile> file;
  std::optional<AnswerJournal> journal;
  RequestSource requests{.size = 1, .read = [&](std::int64_t) { return prompt_line(options); }};
  comm.on_root([&] {
    if (options.requests.empty() && !options.prompt) {
      throw InvalidArgument("requests", "none", "a file with --output, or --prompt TEXT");
    }
    tools = open_text_tools(options.model);
    if (options.requests.empty()) return;
    file.emplace(options.requests, options.defaults);
    requests = {.size = file->size(), .read = [&](std::int64_t i) { return file->read(i); }};
  });
  const std::int64_t count = comm.all_gather(requests.size).front();
  const std::int64_t running = std::min(options.max_running, count);
  LoadedModel model(comm, options.model, running, running, threads);
  comm.on_root([&] {  // fail before any work
    if (options.output.empty()) return;
    { const proto::AtomicFile trial(options.output); }
    journal.emplace(options.output, job_header(options, model), options.resume, options.restart);
  });
  model.prepare();
  if (talks) {
    print_placement(placement, threads, model.backend_name());
    print_model(options.model.name, model.config(), model.options(), load_watch.seconds());
    if (options.resume) print_resumed(stderr, journal->size(), file->size());
  }

  dist::enter(dist::Phase::kCompute);
  ExitCode code = ExitCode::kDone;
  model.job().run([&] {
    code = generate({options, model, *tools, requests, stop_request, watch,
                     journal ? &*journal : nullptr, reads});
  });
  return comm.all_gather(code).front();
}

}  // namespace mla::launch
