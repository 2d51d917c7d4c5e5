#pragma once

#include <CLI/CLI.hpp>

#include "launch/generate/loaded_model.h"

namespace mla::launch {

/// The model and the options of every command that computes with one.
void add_model_settings(CLI::App* cmd, ModelSettings& settings);

}  // namespace mla::launch
