#pragma once

#include <filesystem>
#include <string>
#include <string_view>

#include "core/batch.h"

namespace mla::proto {

/// The text and JSON forms of a batch. `name` is what errors call the file.
/// @throws FormatError with line and column where the parser knows them.
Batch parse_batch_text(std::string_view text, const std::string& name);
Batch parse_batch_json(std::string_view json, const std::string& name);

std::string print_batch_text(const Batch& batch);
std::string print_batch_json(const Batch& batch);

}  // namespace mla::proto
