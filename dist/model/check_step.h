#pragma once

#include "core/model_config.h"
#include "dist/model/limits.h"
#include "dist/model/sharding.h"
#include "dist/model/step_batch.h"

namespace mla::dist {

/// Local, the same on all ranks.
/// @throws InvalidArgument for sizes that no job can have, Unsupported for shapes that the engine
///         cannot do.
void check_options(const ModelConfig& config, const ModelSharding& sharding,
                   const ModelLimits& limits, int ranks);

/// Local, the same on all ranks.
/// @throws InvalidArgument naming the sequence, for what a step cannot do.
void check_step(const StepBatch& batch, const ModelConfig& config, const ModelSharding& sharding,
                const ModelLimits& limits);

}  // namespace mla::dist
