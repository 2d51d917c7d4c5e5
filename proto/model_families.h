#pragma once

#include <string>

#include "core/model_config.h"
#include "proto/json_fields.h"

namespace mla::proto {

/// Reads what a family's config.json says about its computation, `config.family` among it: all but
/// token ids and fields that do not matter. @throws FormatError; Unsupported for a family that is
/// not in `supported_families`.
void read_family(Fields& fields, ModelConfig& config);

/// The values of model_type that are understood: "deepseek_v2, deepseek_v3, ...".
std::string supported_families();

}  // namespace mla::proto
