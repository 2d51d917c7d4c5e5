#include "launch/generate/generate_job.h"

#include <algorithm>
#include <ctime>
#include <exception>
#include <map>
#include <optional>

#include "core/scheduler.h"
#include "dist/model/model_job.h"
#include "launch/affinity.h"
#include "launch/generate/generation.h"
#include "launch/generate/model_plan.h"
#include "launch/generate/report.h"
#include "launch/tables.h"
#include "proto/checkpoint.h"
#include "proto/dummy_weights.h"
#include "proto/file_io.h"
#include "proto/model_config.h"
#include "proto/model_presets.h"

namespace mla::launch {
namespace {

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

/// Answers in the order of the requests.
void write_answers(const std::map<std::int64_t, std::string>& answers,
                   const std::filesystem::path& path) {
  proto::AtomicFile file(path);
  for (const auto& [request, line] : answers) file.write(line);
  file.commit();
}

/// What rank 0 does while the others follow.
ExitCode generate(const GenerateOptions& options, const ModelConfig& config,
                  const dist::ModelOptions& model_options, const TextTools& tools,
                  const RequestSource& requests, dist::ModelJob& model) {
  Scheduler scheduler({.groups = model_options.sharding.groups(),
                       .pages_per_group = model_options.limits.num_pages,
                       .page_tokens = dist::kPageTokens,
                       .max_step_tokens = model_options.limits.max_tokens,
                       .max_running = model_options.limits.max_logits,
                       .share_prefixes = options.share_prefixes});
  const proto::CompletionJob job{.model = options.model, .created = 0};
  const bool streams = options.output.empty();
  std::map<std::int64_t, std::string> answers;
  Generation generation(config, tools, requests, job,
                        {.max_context = context_of(options, config), .seed = options.seed},
                        scheduler, model,
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
  const int threads = choose_threads(comm, options.threads);
  const bool talks = comm.rank() == 0 && !options.quiet;
  const Placement placement = survey_placement(comm, threads);
  bind_threads(comm, threads);

  const dist::Stopwatch watch;
  ModelConfig config;
  ModelWeights weights;
  std::optional<TextTools> tools;
  std::optional<proto::CompletionFile> file;
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
    if (!options.output.empty())
      const proto::AtomicFile trial(options.output);  // fail before any work
  });
  dist::Model model(comm, config, weights, model_options);
  if (talks) {
    print_placement(placement, threads, kernels::find_host_backend(options.backend).name());
    print_model(options.model, config, model_options, watch.seconds());
  }

  dist::ModelJob job(comm, model);
  ExitCode code = ExitCode::kDone;
  std::exception_ptr failure;
  if (comm.rank() == 0) {
    try {
      RequestSource requests{.size = 1, .read = [&](std::int64_t) { return prompt_line(options); }};
      if (file) {
        requests = {.size = file->size(), .read = [&](std::int64_t i) { return file->read(i); }};
      }
      code = generate(options, config, model_options, *tools, requests, job);
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
