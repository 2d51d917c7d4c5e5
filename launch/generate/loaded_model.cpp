#include "launch/generate/loaded_model.h"

#include <algorithm>
#include <filesystem>

#include "core/error.h"
#include "dist/model/planner.h"
#include "launch/machine.h"
#include "proto/checkpoint.h"
#include "proto/dummy_weights.h"
#include "proto/model_config.h"
#include "proto/model_presets.h"

namespace mla::launch {
namespace {

bool is_folder(const std::string& name) {
  std::error_code ignored;
  return std::filesystem::is_directory(name, ignored);
}

ModelConfig read_config(const ModelSettings& settings) {
  ModelConfig config = settings.load_format == "dummy" ? proto::find_model_config(settings.name)
                                                       : proto::read_model_config(settings.name);
  return settings.layers == 0 ? config : proto::cut_layers(std::move(config), settings.layers);
}

WeightType dummy_type(const std::string& name) {
  if (name == "fp16") return WeightType::kFp16;
  if (name == "fp32") return WeightType::kFp32;
  return name == "fp8" ? WeightType::kFp8E4m3 : WeightType::kBf16;
}

ModelWeights read_weights(const ModelConfig& config, const ModelSettings& settings) {
  if (settings.load_format != "dummy") return proto::load_weights(config, settings.name);
  return proto::make_dummy_weights(config, settings.seed, dummy_type(settings.dummy_dtype));
}

/// Memory that each rank may use: its node's, shared by the ranks there; the least of all ranks.
std::int64_t rank_bytes(const dist::Communicator& comm) {
  constexpr double kShare = 0.9;  // the rest is for the system and for files
  const double mine = kShare * static_cast<double>(memory_bytes()) / comm.node().size();
  const auto all = comm.all_gather(static_cast<std::int64_t>(mine));
  return *std::min_element(all.begin(), all.end());
}

/// Those that the options allow. A cache that is cut over the ranks is taken only if asked for: the
/// scheduler deals the same pages out on every rank, so it saves reading, not memory.
std::vector<dist::ShardingCost> allowed(std::vector<dist::ShardingCost> costs,
                                        const ModelSettings& settings, int ranks,
                                        std::int64_t context) {
  if (settings.sharding == "auto") {
    std::erase_if(costs, [](const auto& cost) { return cost.sharding.splits_cache(); });
    return costs;
  }
  auto wanted = dist::parse_model_sharding(settings.sharding, ranks, context);
  wanted.fast_combine = wanted.splits_cache() && settings.combine == "fast";
  std::erase_if(costs, [&](const dist::ShardingCost& cost) { return cost.sharding != wanted; });
  return costs;
}

dist::ModelOptions plan_options(const dist::Communicator& comm, const ModelSettings& settings,
                                const ModelConfig& config, const ModelWeights& weights,
                                std::int64_t running, std::int64_t rows, int threads) {
  const std::int64_t context = settings.max_context == 0
                                   ? config.max_position
                                   : std::min(settings.max_context, config.max_position);
  const std::int64_t bytes = rank_bytes(comm);
  dist::ModelWorkload workload{.requests = running, .context = context};
  if (settings.cache_tokens > 0) workload = {.requests = 1, .context = settings.cache_tokens};
  workload.fast_combine = settings.combine == "fast";
  rows = std::max<std::int64_t>(rows, comm.size());  // every group runs at least one sequence
  dist::ShardingCost taken;
  comm.together([&] {
    const dist::ModelLimits limits{.kv_dtype = parse_kv_dtype(settings.kv_dtype),
                                   .max_tokens = std::max(settings.max_step_tokens, rows),
                                   .max_logits = rows};
    const kernels::HostBackend& backend = kernels::find_host_backend(settings.backend);
    while (true) {
      const auto costs =
          allowed(dist::sharding_costs(config, weights, comm.size(), workload, limits, backend),
                  settings, comm.size(), workload.context);
      const bool fits = std::any_of(costs.begin(), costs.end(),
                                    [&](const auto& cost) { return cost.memory.total() <= bytes; });
      if (fits || workload.requests == 1) {
        taken = dist::choose_sharding(costs, bytes);
        break;
      }
      workload.requests /= 2;
    }
  });
  if (taken.sharding.splits_cache()) {
    taken.limits.num_pages = workload.requests * ceil_div(workload.context, dist::kPageTokens);
  }
  return {.sharding = taken.sharding,
          .limits = taken.limits,
          .threads = threads,
          .backend = settings.backend,
          .longest_context = context};
}

}  // namespace

DType parse_kv_dtype(const std::string& name) {
  for (const DType dtype : {DType::kBf16, DType::kFp16, DType::kFp32}) {
    if (name_of(dtype) == name) return dtype;
  }
  throw InvalidArgument("--kv-dtype", name, "bf16, fp16 or fp32");
}

TextTools open_text_tools(const ModelSettings& settings) {
  return is_folder(settings.name) ? TextTools(settings.name) : TextTools();
}

LoadedModel::LoadedModel(const dist::Communicator& comm, const ModelSettings& settings,
                         std::int64_t running, std::int64_t rows, int threads)
    : comm_(comm) {
  comm.together([&] {
    config_ = read_config(settings);
    weights_ = read_weights(config_, settings);
  });
  options_ = plan_options(comm, settings, config_, weights_, running, rows, threads);
}

void LoadedModel::prepare() {
  model_.emplace(comm_, config_, weights_, options_);
  job_.emplace(comm_, *model_);
}

std::string_view LoadedModel::backend_name() const {
  return kernels::find_host_backend(options_.backend).name();
}

}  // namespace mla::launch
