#pragma once

#include <filesystem>

#include "core/model_config.h"
#include "core/model_weights.h"

namespace mla::proto {

/// The weights of a model in a folder as Hugging Face publishes them: model.safetensors, or shards
/// with model.safetensors.index.json. Files are mapped, so weights take no memory before they are
/// used, and processes of a node share them. Types are those of the tensors: BF16, F16, F32, and
/// F8_E4M3 with scales of 128 x 128 blocks in NAME_scale_inv.
///
/// Tensors of layers from num_layers on (layers for multi-token prediction, or cut ones) are not
/// looked at. A tensor of another layer that the configuration has no use for is refused, as it
/// would change what the model computes.
/// @throws FormatError naming the tensor or the file: a shard or a tensor that is missing, a file
///         cut short, a shape or a type other than expected, a norm or a bias that is not finite.
ModelWeights load_weights(const ModelConfig& config, const std::filesystem::path& folder);

}  // namespace mla::proto
