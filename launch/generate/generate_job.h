#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include "core/error.h"
#include "dist/communicator.h"
#include "launch/generate/loaded_model.h"
#include "proto/completions.h"

namespace mla::launch {

/// What `meshmla generate` was asked for.
struct GenerateOptions {
  ModelSettings model;

  std::filesystem::path requests;  ///< .jsonl or .txt; empty: `prompt`
  std::filesystem::path output;
  std::optional<std::string> prompt;
  bool chat = false;                  ///< the prompt is a user's message
  proto::CompletionRequest defaults;  ///< of requests that do not say otherwise

  std::int64_t max_running = 64;
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
