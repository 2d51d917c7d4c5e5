#pragma once

#include <array>
#include <filesystem>
#include <string>

#include <nlohmann/json.hpp>

#include "tests/support/temp_dir.h"

namespace mla::proto {

/// The tiny models of all families, with what transformers compute.
inline const std::filesystem::path kTinyModels =
    std::filesystem::path(MLA_SOURCE_DIR) / "tests/data/models";
inline constexpr std::array<const char*, 9> kTinyNames{
    "deepseek_v2",     "deepseek_v2_lite", "deepseek_v3",
    "deepseek_v3_fp8", "glm4_moe_lite",    "longcat_flash",
    "minicpm3",        "mistral4",         "youtu"};

inline nlohmann::json json_of(const std::filesystem::path& path) {
  return nlohmann::json::parse(read_text(path));
}

}  // namespace mla::proto
