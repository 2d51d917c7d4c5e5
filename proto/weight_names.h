#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/model_config.h"
#include "core/model_weights.h"

namespace mla::proto {

/// Where the tensors of a model come from, by Hugging Face's names.
class WeightSource {
 public:
  virtual ~WeightSource() = default;

  /// @throws FormatError if there is no such tensor, or it has another shape.
  virtual MatrixView matrix(const std::string& name, std::int64_t rows, std::int64_t cols) = 0;

  /// `count` matrices in one tensor, below each other in the view; empty if there is no such
  /// tensor. @throws FormatError if it has another shape.
  virtual MatrixView stack(const std::string& name, std::int64_t count, std::int64_t rows,
                           std::int64_t cols) = 0;

  /// A norm's weights or a bias, in fp32. @throws as `matrix`.
  virtual std::vector<float> vector(const std::string& name, std::int64_t size) = 0;
};

/// Asks `source` for every tensor that a model has, with its shape: here alone are their names
/// known. `storage` is left to the caller. @throws what the source throws.
ModelWeights collect_weights(const ModelConfig& config, WeightSource& source);

/// The layer that a tensor belongs to by its name, counted as num_layers is; -1 for none.
std::int64_t layer_of(const ModelConfig& config, const std::string& name);

}  // namespace mla::proto
