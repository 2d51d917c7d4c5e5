#pragma once

#include "core/model_config.h"
#include "core/model_weights.h"
#include "dist/communicator.h"
#include "dist/model/model.h"
#include "launch/generate/generate_job.h"

namespace mla::launch {

/// Tokens of a prompt and its answer at most.
std::int64_t context_of(const GenerateOptions& options, const ModelConfig& config);

/// How the ranks share the model, and the cache that they have room for: for `max_running` whole
/// contexts, or else half as many, and so on. Collective; the same on all ranks.
/// @throws CollectiveError if not even one fits into the memory of the smallest node
dist::ModelOptions plan_options(const dist::Communicator& comm, const GenerateOptions& options,
                                const ModelConfig& config, const ModelWeights& weights,
                                int threads);

}  // namespace mla::launch
