#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "core/batch.h"

namespace meshmla {
class Header;
class Request;
class Shape;
enum DType : int;
}  // namespace meshmla

namespace mla::proto {

/// Version of the batch and result formats.
inline constexpr std::uint32_t kFormatVersion = 1;

/// Most requests that a batch may hold, and most bytes of one message of it.
inline constexpr std::int64_t kMaxRequests = 1 << 20;
inline constexpr std::int64_t kMaxMessageBytes = std::int64_t{256} << 20;
inline constexpr std::int64_t kMaxBatchFileBytes = std::int64_t{1} << 30;

/// Between core types and protobuf messages. `name` is what errors call the file.
void encode_shape(const MlaShape& shape, meshmla::Shape& message);
MlaShape decode_shape(const meshmla::Shape& message);

void encode_header(const Batch& batch, meshmla::Header& message);

/// A batch without requests, absent fields filled in. @throws FormatError.
Batch decode_header(const meshmla::Header& message, std::string_view name);

/// @throws FormatError for strings that are not UTF-8.
void encode_request(const Request& request, meshmla::Request& message);

/// Request `position` of `batch`, absent fields filled in. @throws FormatError.
Request decode_request(const meshmla::Request& message, const Batch& batch, std::int64_t position,
                       std::string_view name);

/// @throws FormatError unless `version` is kFormatVersion, or 0 for absent.
void check_version(std::uint32_t version, std::string_view name);

/// @throws FormatError if there are more than kMaxRequests.
void check_request_count(std::uint64_t count, std::string_view name);

/// Between DType and the number of the protobuf enum; `absent` stands for the number 0.
/// @throws FormatError calling the field `field`.
meshmla::DType encode_dtype(DType dtype);
DType decode_dtype(int number, DType absent, const std::string& field);

}  // namespace mla::proto
