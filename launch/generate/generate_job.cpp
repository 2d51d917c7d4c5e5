#include "launch/generate/generate_job.h"

#include <cstdio>
#include <exception>
#include <optional>
#include <utility>

#include <spdlog/spdlog.h>

#include "core/scheduler.h"
#include "dist/activity.h"
#include "dist/model/model_job.h"
#include "dist/stopwatch.h"
#include "dist/watchdog.h"
#include "launch/affinity.h"
#include "launch/generate/answer_journal.h"
#include "launch/generate/generation.h"
#include "launch/generate/job_header.h"
#include "launch/generate/model_plan.h"
#include "launch/generate/report.h"
#include "launch/stop_request.h"
#include "launch/tables.h"
#include "proto/checkpoint.h"
#include "proto/dummy_weights.h"
#include "proto/file_io.h"
#include "proto/model_config.h"
#include "proto/model_presets.h"

namespace mla::launch {
namespace {

constexpr double kSecondsPerHour = 3600;

bool is_folder(const std::string& name) {
  std::error_code ignored;
  return std::filesystem::is_directory(name, ignored);
}

ModelConfig read_config(const GenerateOptions& options) {
  const bool is_preset = options.load_format == "dummy" && !is_folder(options.model);
  ModelConfig config =
      is_preset ? proto::model_preset(options.model) : proto::read_model_config(options.model);
  return options.layers == 0 ? config : proto::cut_layers(std::move(config), options.layers);
}

WeightType dummy_type(const std::string& name) {
  if (name == "fp16") return WeightType::kFp16;
  if (name == "fp32") return WeightType::kFp32;
  return name == "fp8" ? WeightType::kFp8E4m3 : WeightType::kBf16;
}

proto::CompletionLine prompt_line(const GenerateOptions& options) {
  proto::CompletionRequest request = options.defaults;
  request.prompt = options.prompt;
  if (options.chat) {
    request.endpoint = proto::Endpoint::kChat;
    request.prompt = std::vector<proto::ChatMessage>{{.role = "user", .content = options.prompt}};
  }
  return {.custom_id = "prompt", .request = std::move(request)};
}

/// What rank 0 has for the job.
struct RootContext {
  const GenerateOptions& options;
  const ModelConfig& config;
  const dist::ModelOptions& model_options;
  const TextTools& tools;
  const RequestSource& requests;
  const StopRequest& stop_request;
  const dist::Stopwatch& job_watch;
  AnswerJournal* journal;  // null: text goes to standard output
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
ExitCode generate(const RootContext& context, dist::ModelJob& model) {
  const GenerateOptions& options = context.options;
  const dist::ModelOptions& model_options = context.model_options;
  AnswerJournal* const journal = context.journal;
  Scheduler scheduler({.groups = model_options.sharding.groups(),
                       .pages_per_group = model_options.limits.num_pages,
                       .page_tokens = dist::kPageTokens,
                       .max_step_tokens = model_options.limits.max_tokens,
                       .max_running = model_options.limits.max_logits,
                       .share_prefixes = options.share_prefixes});
  const proto::CompletionJob job{.model = options.model, .created = 0};
  std::int64_t answered = journal != nullptr ? journal->size() : 0;
  std::int64_t failed = journal != nullptr ? journal->num_failed() : 0;
  StopRule rule(context);
  GenerationProgress progress(context.requests.size, !options.quiet && journal != nullptr);
  Generation generation(context.config, context.tools, context.requests, job,
                        {.max_context = context_of(options, context.config), .seed = options.seed},
                        scheduler, model,
                        {.answer =
                             [&](std::int64_t request, std::string_view line, bool has_failed) {
                               if (journal != nullptr) journal->keep(request, line, has_failed);
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
  if (!options.quiet) print_generation(generation.stats(), scheduler);
  return code;
}

}  // namespace

ExitCode run_generate(const dist::Communicator& comm, const GenerateOptions& options) {
  const StopRequest stop_request;
  const dist::Stopwatch watch;
  const int threads = choose_threads(comm, options.threads);
  const bool talks = comm.rank() == 0 && !options.quiet;
  const Placement placement = survey_placement(comm, threads);
  bind_threads(comm, threads);
  std::optional<dist::Watchdog> watchdog;
  if (comm.size() > 1) watchdog.emplace(comm, options.timeout_seconds);

  dist::enter(dist::Phase::kLoad);
  const dist::Stopwatch load_watch;
  ModelConfig config;
  ModelWeights weights;
  std::optional<TextTools> tools;
  std::optional<proto::CompletionFile> file;
  std::optional<AnswerJournal> journal;
  comm.together([&] {
    config = read_config(options);
    weights = options.load_format == "dummy"
                  ? proto::make_dummy_weights(config, options.seed, dummy_type(options.dummy_dtype))
                  : proto::load_weights(config, options.model);
  });
  const dist::ModelOptions model_options = plan_options(comm, options, config, weights, threads);
  comm.on_root([&] {
    tools = is_folder(options.model) ? TextTools(options.model) : TextTools();
    if (!options.requests.empty()) file.emplace(options.requests, options.defaults);
    if (options.output.empty()) return;
    { const proto::AtomicFile trial(options.output); }  // fail before any work
    journal.emplace(options.output, job_header(options, config, model_options), options.resume,
                    options.restart);
  });
  dist::Model model(comm, config, weights, model_options);
  if (talks) {
    print_placement(placement, threads, kernels::find_host_backend(options.backend).name());
    print_model(options.model, config, model_options, load_watch.seconds());
    if (options.resume) print_resumed(stderr, journal->size(), file->size());
  }

  dist::enter(dist::Phase::kCompute);
  dist::ModelJob job(comm, model);
  ExitCode code = ExitCode::kDone;
  std::exception_ptr failure;
  if (comm.rank() == 0) {
    try {
      RequestSource requests{.size = 1, .read = [&](std::int64_t) { return prompt_line(options); }};
      if (file) {
        requests = {.size = file->size(), .read = [&](std::int64_t i) { return file->read(i); }};
      }
      code = generate({options, config, model_options, *tools, requests, stop_request, watch,
                       journal ? &*journal : nullptr},
                      job);
    } catch (...) {
      failure = std::current_exception();
    }
    job.stop();
  } else {
    job.follow();
  }
  comm.on_root([&] {
    if (failure) std::rethrow_exception(failure);
  });
  return comm.all_gather(code).front();
}

}  // namespace mla::launch
