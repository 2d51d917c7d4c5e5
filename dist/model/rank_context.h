#pragma once

#include <cstdint>
#include <span>

#include "core/model_config.h"
#include "core/model_weights.h"
#include "dist/communicator.h"
#include "dist/model/limits.h"
#include "dist/model/sharding.h"
#include "kernels/backend.h"
#include "kernels/linear.h"

namespace mla::dist {

/// What the blocks of the forward pass share on one rank. Nothing is owned.
struct RankContext {
  const ModelConfig& config;
  const ModelWeights& weights;
  const ModelSharding& sharding;
  const ModelLimits& limits;
  const Communicator& world;
  const Communicator& group;
  const kernels::HostBackend& backend;
  int threads = 1;
  std::span<std::byte> linear_workspace;
  std::int64_t& bytes_read;          ///< so far: of weights, and of rows of the cache
  std::int64_t& partial_bytes_sent;  ///< so far: of a split cache's partials and outputs

  Range part(std::int64_t size) const { return group_part(sharding, world.rank(), size); }

  /// Computes the layers on the rank's threads, and counts the weights that it reads. Local.
  void linear(std::span<const kernels::LinearParams> layers) const {
    kernels::linear(backend, layers, threads, linear_workspace);
    for (const kernels::LinearParams& layer : layers) {
      if (layer.rows > 0) {
        bytes_read += layer.outputs.size() * layer.weights.row_bytes();
      }
    }
  }
  void linear(const kernels::LinearParams& layer) const { linear(std::span(&layer, 1)); }
};

}  // namespace mla::dist
