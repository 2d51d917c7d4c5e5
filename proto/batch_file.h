#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string_view>
#include <vector>

#include "core/batch.h"

namespace mla::proto {

/// The forms of a batch file; docs/batch-format.md describes them.
enum class BatchFormat : std::uint8_t {
  kBinary,  ///< a checksummed stream of protobuf messages that begins with "MESHMLAB"
  kText,    ///< protobuf text format of one BatchFile message: .txtpb or .textproto
  kJson,    ///< protobuf JSON of one BatchFile message: .json
};

/// The form that a file name asks for: kText and kJson by extension, else kBinary.
BatchFormat batch_format_of(const std::filesystem::path& path);

/// Reads a batch of any form, told apart by the magic, then by the extension, and fills in the
/// defaults of absent fields. Checks the file's form, not the batch: call `validate` next.
/// @throws FormatError with the place, also when the file is missing or cannot be read.
Batch read_batch(const std::filesystem::path& path);

/// Reads a batch in binary form from memory. `name` is what errors call it.
/// @throws FormatError.
Batch decode_batch(std::span<const std::byte> bytes, std::string_view name);

/// The binary form of a batch; equal batches give equal bytes.
/// @throws FormatError if the batch is larger than readers accept.
std::vector<std::byte> encode_batch(const Batch& batch);

/// Writes a batch: to a temporary file beside `path`, which then takes its place.
/// @throws IoError; FormatError if the batch is larger than readers accept.
void write_batch(const Batch& batch, const std::filesystem::path& path, BatchFormat format);

/// Identifies what a job works on: the hash of the batch's binary form and of the size, header and
/// time of last change of each safetensors file it names, relative to `base_dir`.
/// @throws FormatError if such a file is missing or malformed.
std::uint64_t hash_of_input(const Batch& batch, const std::filesystem::path& base_dir);

}  // namespace mla::proto
