#include "launch/generate/generate_job.h"

#include <algorithm>
#include <map>
#include <optional>

#include "core/scheduler.h"
#include "launch/affinity.h"
#include "launch/generate/generation.h"
#include "launch/generate/loaded_model.h"
#include "launch/generate/report.h"
#include "launch/tables.h"
#include "proto/file_io.h"

namespace mla::launch {
namespace {

proto::CompletionLine prompt_line(const GenerateOptions& options) {
  proto::CompletionRequest request = options.defaults;
  request.prompt = options.prompt;
  if (options.chat) {
    request.endpoint = proto::Endpoint::kChat;
    request.prompt = std::vector<proto::ChatMessage>{{.role = "user", .content = options.prompt}};
  }
  return {.custom_id = "prompt", .request = std::move(request)};
}

/// Answers in the order of the requests.
void write_answers(const std::map<std::int64_t, std::string>& answers,
                   const std::filesystem::path& path) {
  proto::AtomicFile file(path);
  for (const auto& [request, line] : answers) file.write(line);
  file.commit();
}

/// What rank 0 does while the others follow.
ExitCode generate(const GenerateOptions& options, LoadedModel& model, const TextTools& tools,
                  const RequestSource& requests) {
  const dist::ModelOptions& limits = model.options();
  Scheduler scheduler({.groups = limits.sharding.groups(),
                       .pages_per_group = limits.limits.num_pages,
                       .page_tokens = dist::kPageTokens,
                       .max_step_tokens = limits.limits.max_tokens,
                       .max_running = limits.limits.max_logits,
                       .share_prefixes = options.share_prefixes});
  const proto::CompletionJob job{.model = options.model.name, .created = 0};
  const bool streams = options.output.empty();
  std::map<std::int64_t, std::string> answers;
  Generation generation(model.config(), tools, requests, job,
                        {.max_context = limits.longest_context, .seed = options.model.seed},
                        scheduler, model.job(),
                        {.answer = [&](std::int64_t request,
                                       std::string line) { answers[request] = std::move(line); },
                         .text =
                             [&](std::int64_t, std::string_view text) {
                               if (streams) print_text(text);
                             },
                         .should_stop = [] { return false; }});
  generation.run([&](std::int64_t request) { return answers.contains(request); });
  if (streams) {
    print_text("\n");
  } else {
    write_answers(answers, options.output);
  }
  if (!options.quiet) print_generation(generation.stats(), scheduler);
  return generation.stats().failed == 0 ? ExitCode::kDone : ExitCode::kSomeRequestsFailed;
}

}  // namespace

ExitCode run_generate(const dist::Communicator& comm, const GenerateOptions& options) {
  const int threads = choose_threads(comm, options.model.threads);
  const bool talks = comm.rank() == 0 && !options.quiet;
  const Placement placement = survey_placement(comm, threads);
  bind_threads(comm, threads);

  const dist::Stopwatch watch;
  std::optional<TextTools> tools;
  std::optional<proto::CompletionFile> file;
  RequestSource requests{.size = 1, .read = [&](std::int64_t) { return prompt_line(options); }};
  comm.on_root([&] {
    tools = open_text_tools(options.model);
    if (!options.output.empty()) const proto::AtomicFile trial(options.output);  // fail before work
    if (options.requests.empty()) return;
    file.emplace(options.requests, options.defaults);
    requests = {.size = file->size(), .read = [&](std::int64_t i) { return file->read(i); }};
  });
  const std::int64_t count = comm.all_gather(requests.size).front();
  const std::int64_t running = std::min(options.max_running, count);
  LoadedModel model(comm, options.model, running, running, threads);
  if (talks) {
    print_placement(placement, threads, model.backend_name());
    print_model(options.model.name, model.config(), model.options(), watch.seconds());
  }
  ExitCode code = ExitCode::kDone;
  model.job().run([&] { code = generate(options, model, *tools, requests); });
  return comm.all_gather(code).front();
}

}  // namespace mla::launch
