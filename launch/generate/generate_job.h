#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include "core/error.h"
#include "dist/communicator.h"
#include "proto/completions.h"

namespace mla::launch {

/// What `meshmla generate` was asked for.
struct GenerateOptions {
  std::string model;                 ///< a folder; with made-up weights also the name of a preset
  std::string load_format = "auto";  ///< "auto": the folder's weights; "dummy": made up
  std::string dummy_dtype = "bf16";  ///< of made-up weights: bf16, fp16, fp32 or fp8
  std::int64_t layers = 0;           ///< 0: all

  std::filesystem::path requests;  ///< .jsonl or .txt; empty: `prompt`
  std::filesystem::path output;
  std::string prompt;
  bool chat = false;                  ///< the prompt is a user's message
  proto::CompletionRequest defaults;  ///< of requests that do not say otherwise
  std::uint64_t seed = 0;

  std::string sharding = "auto";
  std::string backend = "auto";
  std::string kv_dtype = "fp32";
  int threads = 0;  ///< per rank; 0: as `choose_threads` says
  std::int64_t max_running = 64;
  std::int64_t max_step_tokens = 512;
  std::int64_t max_context = 0;   ///< 0: the model's
  std::int64_t cache_tokens = 0;  ///< of each group of ranks; 0: enough for `max_running`
  bool share_prefixes = true;

  double timeout_seconds = 300;  ///< without progress on any rank; 0: no limit
  bool resume = false;           ///< go on from the journals of earlier runs
  bool restart = false;          ///< discard them
  double max_hours = 0;          ///< stop in time to take no longer; 0: no limit
  bool quiet = false;
};

/// The whole of `meshmla generate`. Collective.
ExitCode run_generate(const dist::Communicator& comm, const GenerateOptions& options);

}  // namespace mla::launch
