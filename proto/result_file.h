#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/batch.h"
#include "core/result.h"

namespace mla::proto {

/// The forms of a result file; docs/batch-format.md describes them.
enum class ResultFormat : std::uint8_t {
  kStream,       ///< a checksummed stream of protobuf messages that begins with "MESHMLAR"
  kSafetensors,  ///< tensors out.<custom_id> and lse.<custom_id>, for NumPy and PyTorch
};

/// The form that a file name asks for: kSafetensors by its extension, else kStream.
ResultFormat result_format_of(const std::filesystem::path& path);

/// XXH3-64 of `out`, then `lse` as little-endian floats.
std::uint64_t checksum_of(const Result& result);

/// Writes the results of a batch. The bytes depend on nothing but the results. Nothing is seen at
/// the path before `commit`; an uncommitted writer leaves nothing behind.
class ResultWriter {
 public:
  /// `failed` says why each request (by its position in the batch) that has no result has none.
  /// The batch must outlive the writer.
  /// @throws IoError; Unsupported if a result is too large for the form.
  ResultWriter(const std::filesystem::path& path, ResultFormat format, const Batch& batch,
               std::map<std::int64_t, std::string> failed = {});
  ~ResultWriter();

  /// Appends the result of the next request that is not in `failed`.
  /// @throws InvalidArgument if it is not that request's or its sizes are wrong; IoError.
  void append(const Result& result);

  /// Makes the file appear. @throws InvalidArgument if results are missing; IoError.
  void commit();

  class Sink;  ///< one per form

 private:
  void write_failed();

  const Batch& batch_;
  std::map<std::int64_t, std::string> failed_;
  std::int64_t next_ = 0;  // position in the batch
  std::unique_ptr<Sink> sink_;
};

/// What a result file holds: one result per request, in the batch's order.
struct ResultSet {
  std::vector<Result> results;

  /// The result of `custom_id`, or null. Takes time linear in the number of results.
  const Result* find(std::string_view custom_id) const;
};

/// Reads a result file of either form and verifies its checksums. Safetensors files of other makers
/// are read too, if they have an out.<id> and a lse.<id> for each id.
/// @throws FormatError naming the request whose record is wrong; also when the file is missing.
ResultSet read_results(const std::filesystem::path& path);

}  // namespace mla::proto
