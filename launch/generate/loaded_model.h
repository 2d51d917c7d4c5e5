#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "core/dtype.h"
#include "core/model_config.h"
#include "core/model_weights.h"
#include "dist/communicator.h"
#include "dist/model/model.h"
#include "dist/model/model_job.h"
#include "launch/generate/text_tools.h"

namespace mla::launch {

/// Which model, and how a job computes with it.
struct ModelSettings {
  std::string name;                  ///< a folder; with made-up weights also the name of a preset
  std::string load_format = "auto";  ///< "auto": the folder's weights; "dummy": made up
  std::string dummy_dtype = "bf16";  ///< of made-up weights: bf16, fp16, fp32 or fp8
  std::int64_t layers = 0;           ///< 0: all
  std::uint64_t seed = 0;            ///< of made-up weights, and of what is sampled

  std::string sharding = "auto";
  std::string combine = "exact";  ///< or "fast": of the partials of a cache that is split
  std::string backend = "auto";
  std::string kv_dtype = "fp32";
  int threads = 0;  ///< per rank; 0: as `choose_threads` says
  std::int64_t max_step_tokens = 512;
  std::int64_t max_context = 0;   ///< of a prompt and its answer; 0: the model's
  std::int64_t cache_tokens = 0;  ///< of each group of ranks; 0: for all that run, if they fit
};

/// @throws InvalidArgument unless `name` is bf16, fp16 or fp32
DType parse_kv_dtype(const std::string& name);

/// Tokenizer and chat template of the model's folder, if it has any.
TextTools open_text_tools(const ModelSettings& settings);

/// A model on all ranks of a job.
class LoadedModel {
 public:
  /// Reads the model, and plans how the ranks share it and how large its cache is: for `running`
  /// whole contexts, or else half as many, and so on. A step gives at most `rows` rows of logits.
  /// Collective.
  /// @throws CollectiveError for what is wrong with the model, and if not even one context fits
  ///         into the memory of the smallest node
  LoadedModel(const dist::Communicator& comm, const ModelSettings& settings, std::int64_t running,
              std::int64_t rows, int threads);
  LoadedModel(const LoadedModel&) = delete;
  LoadedModel& operator=(const LoadedModel&) = delete;

  /// Makes it ready to compute: reads this rank's part of the weights. Collective, once.
  /// @throws CollectiveError for weights that are no numbers
  void prepare();

  const ModelConfig& config() const { return config_; }
  const dist::ModelOptions& options() const { return options_; }
  std::string_view backend_name() const;
  /// Both once it is prepared.
  dist::Model& model() { return *model_; }
  dist::ModelJob& job() { return *job_; }

 private:
  const dist::Communicator& comm_;
  ModelConfig config_;
  ModelWeights weights_;
  dist::ModelOptions options_;
  std::optional<dist::Model> model_;
  std::optional<dist::ModelJob> job_;
};

}  // namespace mla::launch
