#pragma once

#include <cstdint>
#include <string>

#include "launch/generate/loaded_model.h"

namespace mla::launch {

/// Options of `plan --model`.
struct PlanModelOptions {
  std::string model;  ///< a folder, or the name of a preset
  std::int64_t layers = 0;
  int ranks = 1;
  std::string sharding = "auto";
  std::string backend = "auto";
  std::int64_t requests = 1;
  std::int64_t context = 4096;
  std::int64_t max_tokens = 512;
  std::string kv_dtype = ModelSettings().kv_dtype;
  double rank_gib = 0;  ///< 0: this machine's memory, shared by the ranks
};

/// Prints what every sharding would need and cost, and which one is taken.
/// @throws InvalidArgument if none fits.
void plan_model(const PlanModelOptions& options);

}  // namespace mla::launch
