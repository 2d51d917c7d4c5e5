#pragma once

#include <filesystem>
#include <string>
#include <string_view>

#include "core/model_config.h"

namespace mla::proto {

/// Reads a Hugging Face config.json in its old style (rope_scaling, torch_dtype) or its new one
/// (rope_parameters, dtype), with the meaning that transformers 5.17 give to it. What would change
/// the computation in a way that is not supported is refused by name, and so are unknown fields.
/// `name` begins the names of fields in errors. @throws FormatError; Unsupported for another
/// model_type.
ModelConfig parse_model_config(std::string_view text, const std::string& name);

/// Reads folder/config.json, and the ids that end a text from folder/generation_config.json if
/// there is one. @throws as `parse_model_config`.
ModelConfig read_model_config(const std::filesystem::path& folder);

/// Cuts a model to its first `layers` layers, for experiments.
/// @throws InvalidArgument unless 1 <= layers <= config.num_layers, and even where layers come in
///         pairs.
ModelConfig cut_layers(ModelConfig config, std::int64_t layers);

}  // namespace mla::proto
