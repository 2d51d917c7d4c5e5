#include "launch/generate/model_settings.h"

#include "launch/command.h"

namespace mla::launch {

void add_model_settings(CLI::App* cmd, ModelSettings& settings) {
  cmd->add_option("model", settings.name,
                  "Folder of a Hugging Face model; with --load-format dummy also a preset's name")
      ->required()
      ->envname("MESHMLA_MODEL");
  cmd->add_option("--load-format", settings.load_format,
                  "auto: the folder's weights; dummy: made-up ones, for experiments")
      ->check(CLI::IsMember({"auto", "dummy"}))
      ->capture_default_str();
  cmd->add_option("--dummy-dtype", settings.dummy_dtype, "Type of made-up weights")
      ->check(CLI::IsMember({"bf16", "fp16", "fp32", "fp8"}))
      ->capture_default_str();
  cmd->add_option("--layers", settings.layers, "Only the first so many layers, for experiments")
      ->check(within(1, 10'000));
  cmd->add_option("--sharding", settings.sharding,
                  "How ranks share the model: auto, heads, kv, requests or groups:G")
      ->capture_default_str()
      ->envname("MESHMLA_SHARDING");
  cmd->add_option("--combine", settings.combine,
                  "With --sharding kv: exact sends partials in fp32, for the same bits with any "
                  "ranks; fast sends values in bf16, in an eighth of the bytes or less")
      ->check(CLI::IsMember({"exact", "fast"}))
      ->capture_default_str();
  cmd->add_option("--backend", settings.backend, "Kernels to use; auto takes the fastest")
      ->capture_default_str()
      ->envname("MESHMLA_BACKEND");
  cmd->add_option("--kv-dtype", settings.kv_dtype, "Type of the cache: bf16, fp16 or fp32")
      ->capture_default_str();
  cmd->add_option("--threads", settings.threads,
                  "Threads per rank [OMP_NUM_THREADS, else one per core the rank may use]")
      ->check(within(1, 4096))
      ->envname("MESHMLA_THREADS");
  cmd->add_option("--max-step-tokens", settings.max_step_tokens, "Tokens of a step")
      ->check(within(1, 1 << 20))
      ->capture_default_str();
  cmd->add_option("--max-context", settings.max_context,
                  "Tokens of a prompt and its answer [the model's]")
      ->check(CLI::PositiveNumber);
  cmd->add_option("--cache-tokens", settings.cache_tokens,
                  "Room in the cache of each group of ranks [for --max-running whole contexts, or "
                  "as many as fit]")
      ->check(CLI::PositiveNumber);
  cmd->add_option("--seed", settings.seed,
                  "Of made-up weights, and of requests without a seed of their own")
      ->capture_default_str();
}

}  // namespace mla::launch
