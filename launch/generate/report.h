#pragma once

#include <string>
#include <string_view>

#include "core/model_config.h"
#include "core/scheduler.h"
#include "dist/model/model.h"
#include "launch/generate/generation_stats.h"

namespace mla::launch {

/// The model and how it is spread over ranks, on standard error.
void print_model(const std::string& name, const ModelConfig& config,
                 const dist::ModelOptions& options, double load_seconds);

/// The closing lines of a generation, on standard error.
void print_generation(const GenerationStats& stats, const Scheduler& scheduler);

/// Generated text, on standard output, at once.
void print_text(std::string_view text);

}  // namespace mla::launch
