#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "core/error.h"
#include "dist/communicator.h"

namespace mla::launch::bench {

/// What `meshmla bench --model` was asked for.
struct ModelBenchOptions {
  std::string model;        ///< a preset's name or a folder with a config.json
  std::int64_t layers = 0;  ///< 0: all
  std::string requests = "1,16";
  std::string contexts = "128,2048";  ///< tokens of each request
  std::string kv_dtype = "bf16";
  std::string sharding = "auto";
  std::string combine = "exact";
  std::string backend = "auto";
  std::string threads;  ///< per rank; empty: as `choose_threads` says
  int steps = 20;       ///< of each point
};

/// Measures a model with made-up bf16 weights on all ranks: for every number of requests and every
/// context first the prompts, in steps of 512 tokens, then steps of one token for each request.
/// A table goes to `sink`, line by line, on rank 0: how long the parts of a step took, what they
/// read, and how that compares with what all ranks together read at most, as measured before.
/// Collective.
/// @throws CollectiveError before anything is measured
ExitCode run_model_bench(const dist::Communicator& comm, const ModelBenchOptions& options,
                         const std::function<void(const std::string&)>& sink);

}  // namespace mla::launch::bench
