#pragma once

#include <cstdint>
#include <filesystem>

#include "core/error.h"
#include "dist/communicator.h"
#include "launch/generate/loaded_model.h"

namespace mla::launch {

/// What `meshmla perplexity` was asked for.
struct PerplexityOptions {
  ModelSettings model;
  std::filesystem::path text;
};

/// Prints the perplexity of a text: exp of the mean negative log-likelihood of its tokens, each
/// given those before it, in windows of at most the context that do not overlap. Collective.
ExitCode run_perplexity(const dist::Communicator& comm, const PerplexityOptions& options);

}  // namespace mla::launch
