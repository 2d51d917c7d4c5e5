#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core/dtype.h"

namespace mla::launch::bench {

/// The most values that one option may list.
inline constexpr std::int64_t kMaxListed = 4096;

/// Elements of a cache row and of its value part.
struct RowShape {
  std::int64_t d_qk = 0;
  std::int64_t d_v = 0;

  friend bool operator==(const RowShape&, const RowShape&) = default;
};

/// The items between the commas of `text`. @throws InvalidArgument for an empty one.
std::vector<std::string> parse_names(std::string_view field, std::string_view text);

/// A comma-separated list of sizes and ranges of sizes: "16", "4k" (4 * 1024), "1m" (1024 * 1024),
/// "1k..128k*2" (1k, 2k, 4k ... 128k), "16..64+16" (16, 32, 48, 64). A range ends at the last value
/// that is not above its end. Each size is at least 1 and at most 2^40.
/// @throws InvalidArgument that names `field` and the item which is none of these.
std::vector<std::int64_t> parse_sizes(std::string_view field, std::string_view text);

/// A single size, 1 to `most`. @throws InvalidArgument.
std::int64_t parse_size(std::string_view field, std::string_view text, std::int64_t most);

/// "576/512,320/256": d_qk/d_v, d_v a multiple of 16 and d_qk at least d_v plus a multiple of 8.
/// @throws InvalidArgument.
std::vector<RowShape> parse_shapes(std::string_view field, std::string_view text);

/// "bf16,fp16". @throws InvalidArgument.
std::vector<DType> parse_dtypes(std::string_view field, std::string_view text);

}  // namespace mla::launch::bench
