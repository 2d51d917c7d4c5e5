#pragma once

#include <map>
#include <memory>
#include <span>
#include <string>

#include "proto/result_file.h"

namespace mla::proto {

inline constexpr std::string_view kResultMagic = "MESHMLAR";

/// Most bytes of one message of a result stream; protobuf's own limit is 2 GiB.
inline constexpr std::int64_t kMaxResultMessageBytes = (std::int64_t{2} << 30) - (1 << 20);

/// Where a ResultWriter's results go; it has checked them.
class ResultWriter::Sink {
 public:
  Sink() = default;
  Sink(const Sink&) = delete;
  Sink& operator=(const Sink&) = delete;
  virtual ~Sink() = default;

  /// Appends the next result, or the record of a failed request.
  virtual void append(const Result& result) = 0;
  virtual void commit() = 0;
};

std::unique_ptr<ResultWriter::Sink> make_stream_sink(const std::filesystem::path& path,
                                                     const Batch& batch);

std::unique_ptr<ResultWriter::Sink> make_safetensors_sink(
    const std::filesystem::path& path, const Batch& batch,
    const std::map<std::int64_t, std::string>& failed);

ResultSet read_result_stream(std::span<const std::byte> bytes, const std::string& name);
ResultSet read_result_tensors(const std::filesystem::path& path);

/// Bytes of a request's out and number of its lse, as the batch's shape asks for.
std::int64_t out_bytes_of(const Batch& batch, const Request& request);
std::int64_t lse_count_of(const Batch& batch, const Request& request);

}  // namespace mla::proto
