#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace mla::proto {

/// XXH3-64 of bytes.
std::uint64_t xxh3(std::span<const std::byte> bytes);
std::uint64_t xxh3(std::string_view text);

}  // namespace mla::proto
