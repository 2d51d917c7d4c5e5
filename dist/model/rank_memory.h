#pragma once

#include <cstdint>

#include "core/model_config.h"
#include "core/model_weights.h"
#include "dist/model/limits.h"
#include "dist/model/sharding.h"
#include "kernels/backend.h"

namespace mla::dist {

/// Bytes of scratch that linear layers of the model need on a rank.
std::int64_t linear_workspace_bytes(const ModelConfig& config, const ModelSharding& sharding,
                                    const ModelLimits& limits, const kernels::HostBackend& backend);

/// What one rank needs, in bytes.
struct RankMemory {
  std::int64_t weights = 0;  ///< its rows, and one embedding of each token
  std::int64_t copies = 0;   ///< of the keys' matrices, transposed
  std::int64_t cache = 0;
  std::int64_t buffers = 0;  ///< between the layers and for messages; without the engine's scratch

  std::int64_t total() const { return weights + copies + cache + buffers; }
};

/// Known before anything is loaded: of `weights` only types and sizes are read.
RankMemory rank_memory(const ModelConfig& config, const ModelWeights& weights,
                       const ModelSharding& sharding, const ModelLimits& limits,
                       const kernels::HostBackend& backend, int rank);

}  // namespace mla::dist
