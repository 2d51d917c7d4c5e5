#pragma once

#include <filesystem>
#include <vector>

#include "core/trace.h"

namespace mla::proto {

/// Reads a trace of requests, told apart by the extension, then by the first character:
///   .jsonl  Mooncake: {"timestamp", "input_length", "output_length", "hash_ids"} per line
///   .csv    Azure LLM inference: TIMESTAMP,ContextTokens,GeneratedTokens
/// Timestamps become milliseconds after the first entry's.
/// @throws FormatError naming file and line.
std::vector<TraceEntry> read_trace(const std::filesystem::path& path);

}  // namespace mla::proto
