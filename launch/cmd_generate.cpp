#include <memory>

#include "launch/command.h"
#include "launch/generate/generate_job.h"
#include "launch/generate/model_settings.h"

namespace mla::launch {
namespace {

void add_request_options(CLI::App* cmd, GenerateOptions& options) {
  auto* requests = cmd->add_option(
      "requests", options.requests,
      "Requests: .jsonl in OpenAI's batch format, or .txt with a prompt on each line");
  auto* prompt = cmd->add_option("--prompt", options.prompt, "One prompt, answered on the terminal")
                     ->excludes(requests);
  auto* output = cmd->add_option("-o,--output", options.output,
                                 "Answers to write, a JSON line for each request")
                     ->needs(requests);
  requests->needs(output);
  auto* resume =
      cmd->add_flag("--resume", options.resume,
                    "Go on from the answers that an earlier run of this job left in journals "
                    "beside the output, if any")
          ->needs(output);
  cmd->add_flag("--restart", options.restart, "Discard them and begin anew")
      ->needs(output)
      ->excludes(resume);
  cmd->add_option("--max-hours", options.max_hours,
                  "Stop in time to take no longer; --resume goes on (exit 75)")
      ->check(CLI::PositiveNumber)
      ->envname("MESHMLA_MAX_HOURS");
  cmd->add_flag("--chat", options.chat, "The prompt is a user's message to a chat model")
      ->needs(prompt);
  cmd->add_option("--max-tokens", options.defaults.stop.max_tokens,
                  "Tokens of an answer at most [as many as the context holds]")
      ->check(CLI::PositiveNumber);
  cmd->add_option("--temperature", options.defaults.sampling.temperature, "0: the likeliest token")
      ->capture_default_str();
  cmd->add_option("--top-k", options.defaults.sampling.top_k,
                  "Of so many likeliest tokens; 0: all");
  cmd->add_option("--top-p", options.defaults.sampling.top_p,
                  "Of the likeliest tokens with this probability together")
      ->capture_default_str();
  cmd->add_option("--min-p", options.defaults.sampling.min_p,
                  "Of tokens with this share of the largest probability");
  cmd->add_option("--stop", options.defaults.stop.strings, "Texts that end an answer");
  cmd->add_flag("--ignore-eos", options.defaults.stop.ignore_eos,
                "Do not end where the model would");
}

void add_running_options(CLI::App* cmd, GenerateOptions& options) {
  cmd->add_option("--max-running", options.max_running, "Requests that run at the same time")
      ->check(within(1, 1 << 20))
      ->capture_default_str();
  cmd->add_flag("!--no-prefix-sharing", options.share_prefixes,
                "Compute beginnings that requests have in common for each of them");
  cmd->add_option("--timeout", options.timeout_seconds,
                  "Give up (exit 6) after so many seconds without progress on any rank; 0: never")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str()
      ->envname("MESHMLA_TIMEOUT");
  cmd->add_flag("-q,--quiet", options.quiet, "Print text and errors only");
}

}  // namespace

Command add_generate(CLI::App& app) {
  auto options = std::make_shared<GenerateOptions>();
  options->defaults.sampling.temperature = 0;
  CLI::App* cmd = app.add_subcommand("generate", "Answer prompts with a model, on all ranks");
  add_model_settings(cmd, options->model);
  add_request_options(cmd, *options);
  add_running_options(cmd, *options);
  return [options](const dist::Communicator& comm) { return run_generate(comm, *options); };
}

}  // namespace mla::launch
