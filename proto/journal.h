#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include "core/result.h"

namespace mla::proto {

/// A finished result as a record of a rank's journal (record_log.h).
std::vector<std::byte> encode_slice(const ResultSlice& slice);

/// The result in a record, which errors call `name`. @throws FormatError if it contradicts itself.
ResultSlice decode_slice(std::span<const std::byte> record, const std::string& name);

}  // namespace mla::proto
