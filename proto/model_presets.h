#pragma once

#include <string>

#include "core/model_config.h"

namespace mla::proto {

/// "deepseek-v2, deepseek-v3, ...": the published models whose sizes are known by name, for
/// experiments with made-up weights.
std::string model_preset_names();

/// The configuration of a published model, as its config.json has it, without ids of tokens: with
/// made-up weights no token ends a text. @throws InvalidArgument for another name.
ModelConfig model_preset(const std::string& name);

/// The configuration in a folder if there is one of that name, else the preset's.
/// @throws InvalidArgument if there is neither; as `read_model_config`.
ModelConfig find_model_config(const std::string& folder_or_preset);

}  // namespace mla::proto
