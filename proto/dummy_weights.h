#pragma once

#include <cstdint>

#include "core/model_config.h"
#include "core/model_weights.h"

namespace mla::proto {

/// Made-up weights for experiments with a model's shape: evenly spread random numbers that keep
/// activations near 1; norms are 1, biases 0. An element depends only on (seed, tensor's name, its
/// place, type), so that any rank can make any part. Memory is taken up by the rows that
/// `WeightStorage::prepare` is called for, alone. With fp8, what DeepSeek leaves in bf16 is in
/// bf16: embedding, head and routers.
ModelWeights make_dummy_weights(const ModelConfig& config, std::uint64_t seed, WeightType type);

}  // namespace mla::proto
