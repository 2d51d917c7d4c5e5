#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "proto/hash.h"

namespace google::protobuf {
class MessageLite;
}

namespace mla::proto {

/// The framing that batch and result files share:
///   magic     8 bytes
///   messages  each its length as a varint (never 0), then its bytes
///   trailer   a byte 0; XXH3-64 of all bytes before this field; the number of messages
/// The trailer's numbers are 8 bytes each, little-endian.
class MessageStreamWriter {
 public:
  using Sink = std::function<void(std::span<const std::byte>)>;

  MessageStreamWriter(std::string_view magic, Sink sink);

  /// @throws FormatError naming `what` if the message exceeds `max_bytes`.
  void append(const google::protobuf::MessageLite& message, std::int64_t max_bytes,
              const std::string& what);
  void finish();

 private:
  void put(std::span<const std::byte> bytes);

  Sink sink_;
  Xxh3Stream hash_;
  std::uint64_t count_ = 0;
};

/// Walks over the messages of a stream in memory.
class MessageStreamReader {
 public:
  /// Verifies the magic and the trailer. `name` is what errors call the stream.
  /// @throws FormatError.
  MessageStreamReader(std::span<const std::byte> bytes, std::string_view magic, std::string name);

  /// The bytes of the next message; none after the last one.
  /// @throws FormatError, also if the message is larger than `max_bytes`.
  std::optional<std::span<const std::byte>> next(std::int64_t max_bytes);

  /// Messages in the stream, as the trailer says; `next` verifies it.
  std::uint64_t count() const { return count_; }

 private:
  std::uint64_t read_varint();

  std::string name_;
  std::span<const std::byte> rest_;  // without the trailer
  std::uint64_t count_ = 0;
  std::uint64_t read_ = 0;
};

/// True if `bytes` begin with `magic`.
bool begins_with(std::span<const std::byte> bytes, std::string_view magic);

/// Parses one message without letting the library print. @throws FormatError calling it `what`.
void parse_message(std::span<const std::byte> bytes, const std::string& what,
                   google::protobuf::MessageLite& message);

}  // namespace mla::proto
