#include <memory>

#include "launch/command.h"
#include "launch/generate/generate_job.h"

namespace mla::launch {
namespace {

void add_model_options(CLI::App* cmd, GenerateOptions& options) {
  cmd->add_option("model", options.model,
                  "Folder of a Hugging Face model; with --load-format dummy also a preset's name")
      ->required()
      ->envname("MESHMLA_MODEL");
  cmd->add_option("--load-format", options.load_format,
                  "auto: the folder's weights; dummy: made-up ones, for experiments")
      ->check(CLI::IsMember({"auto", "dummy"}))
      ->capture_default_str();
  cmd->add_option("--dummy-dtype", options.dummy_dtype, "Type of made-up weights")
      ->check(CLI::IsMember({"bf16", "fp16", "fp32", "fp8"}))
      ->capture_default_str();
  cmd->add_option("--layers", options.layers, "Only the first so many layers, for experiments")
      ->check(CLI::Range(1, 10'000));
}

void add_request_options(CLI::App* cmd, GenerateOptions& options) {
  auto* requests = cmd->add_option(
      "requests", options.requests,
      "Requests: .jsonl in OpenAI's batch format, or .txt with a prompt on each line");
  auto* prompt = cmd->add_option("--prompt", options.prompt, "One prompt, answered on the terminal")
                     ->excludes(requests);
  auto* output = cmd->add_option("-o,--output", options.output,
                                 "Answers to write, a JSON line for each request")
                     ->needs(requests);
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
  cmd->add_option("--seed", options.seed, "Of requests without a seed of their own")
      ->capture_default_str();
}

void add_job_options(CLI::App* cmd, GenerateOptions& options) {
  cmd->add_option("--sharding", options.sharding,
                  "How ranks share the model: auto, heads, kv, requests or groups:G")
      ->capture_default_str()
      ->envname("MESHMLA_SHARDING");
  cmd->add_option("--backend", options.backend, "Kernels to use; auto takes the fastest")
      ->capture_default_str()
      ->envname("MESHMLA_BACKEND");
  cmd->add_option("--kv-dtype", options.kv_dtype, "Type of the cache")
      ->check(CLI::IsMember({"bf16", "fp16", "fp32"}))
      ->capture_default_str();
  cmd->add_option("--threads", options.threads,
                  "Threads per rank [OMP_NUM_THREADS, else one per core the rank may use]")
      ->check(CLI::Range(1, 4096))
      ->envname("MESHMLA_THREADS");
  cmd->add_option("--max-running", options.max_running, "Requests that run at the same time")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  cmd->add_option("--max-step-tokens", options.max_step_tokens, "Tokens of a step")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  cmd->add_option("--max-context", options.max_context,
                  "Tokens of a prompt and its answer [the model's]")
      ->check(CLI::PositiveNumber);
  cmd->add_option("--cache-tokens", options.cache_tokens,
                  "Room in the cache of each group of ranks [for --max-running whole contexts, or "
                  "as many as fit]")
      ->check(CLI::PositiveNumber);
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
  add_model_options(cmd, *options);
  add_request_options(cmd, *options);
  add_job_options(cmd, *options);
  return [options](const dist::Communicator& comm) { return run_generate(comm, *options); };
}

}  // namespace mla::launch
