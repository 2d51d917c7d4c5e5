#include "proto/message_stream.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <limits>
#include <vector>

#include <google/protobuf/message_lite.h>
#include <google/protobuf/stubs/logging.h>

#include "core/error.h"

namespace mla::proto {
namespace {

static_assert(std::endian::native == std::endian::little, "files are little-endian");

constexpr std::size_t kTrailerBytes = 1 + 8 + 8;

std::uint64_t load_u64(std::span<const std::byte> bytes) {
  std::uint64_t value = 0;
  std::memcpy(&value, bytes.data(), sizeof value);
  return value;
}

}  // namespace

MessageStreamWriter::MessageStreamWriter(std::string_view magic, Sink sink)
    : sink_(std::move(sink)) {
  put(std::as_bytes(std::span(magic)));
}

void MessageStreamWriter::append(const google::protobuf::MessageLite& message,
                                 std::int64_t max_bytes, const std::string& what) {
  const std::size_t size = message.ByteSizeLong();
  if (size > static_cast<std::uint64_t>(max_bytes)) {
    throw FormatError(what, std::to_string(size) + " bytes",
                      "at most " + std::to_string(max_bytes));
  }
  std::vector<std::byte> frame;
  for (std::uint64_t rest = size; frame.empty() || rest != 0; rest >>= 7) {
    frame.push_back(static_cast<std::byte>((rest & 0x7fu) | (rest > 0x7fu ? 0x80u : 0u)));
  }
  const std::size_t head = frame.size();
  frame.resize(head + size);
  message.SerializeWithCachedSizesToArray(reinterpret_cast<std::uint8_t*>(frame.data() + head));
  put(frame);
  ++count_;
}

void MessageStreamWriter::finish() {
  put(std::array{std::byte{0}});
  const std::array<std::uint64_t, 2> numbers{hash_.digest(), count_};
  sink_(std::as_bytes(std::span(numbers)));
}

void MessageStreamWriter::put(std::span<const std::byte> bytes) {
  hash_.update(bytes);
  sink_(bytes);
}

MessageStreamReader::MessageStreamReader(std::span<const std::byte> bytes, std::string_view magic,
                                         std::string name)
    : name_(std::move(name)) {
  if (!begins_with(bytes, magic)) {
    throw FormatError(name_, "another magic", "the magic " + std::string(magic));
  }
  if (bytes.size() < magic.size() + kTrailerBytes) {
    throw FormatError(name_, "cut short after " + std::to_string(bytes.size()) + " bytes",
                      "a trailer of " + std::to_string(kTrailerBytes) + " bytes at the end");
  }
  const std::span<const std::byte> hashed = bytes.first(bytes.size() - kTrailerBytes + 1);
  const std::span<const std::byte> numbers = bytes.subspan(hashed.size());
  if (hashed.back() != std::byte{0} || xxh3(hashed) != load_u64(numbers)) {
    throw FormatError(name_, "damaged or cut short (" + std::to_string(bytes.size()) + " bytes)",
                      "a trailer at the end with the checksum of all that is before it");
  }
  count_ = load_u64(numbers.subspan(8));
  rest_ = hashed.subspan(magic.size(), hashed.size() - magic.size() - 1);
}

std::optional<std::span<const std::byte>> MessageStreamReader::next(std::int64_t max_bytes) {
  if (rest_.empty()) {
    if (read_ == count_) return std::nullopt;
    throw FormatError(name_, std::to_string(read_) + " messages",
                      std::to_string(count_) + ", as its trailer says");
  }
  const std::uint64_t size = read_varint();
  const std::string what = name_ + ": message " + std::to_string(read_);
  if (size == 0 || size > static_cast<std::uint64_t>(max_bytes)) {
    throw FormatError(what, std::to_string(size) + " bytes", "1 to " + std::to_string(max_bytes));
  }
  if (size > rest_.size()) {
    throw FormatError(what, std::to_string(size) + " bytes",
                      "at most the " + std::to_string(rest_.size()) + " that are left");
  }
  const std::span<const std::byte> message = rest_.first(size);
  rest_ = rest_.subspan(size);
  ++read_;
  return message;
}

std::uint64_t MessageStreamReader::read_varint() {
  constexpr int kMaxBytes = 9;  // 63 bits
  std::uint64_t value = 0;
  for (int i = 0; i < kMaxBytes && !rest_.empty(); ++i) {
    const auto byte = std::to_integer<std::uint64_t>(rest_.front());
    rest_ = rest_.subspan(1);
    value |= (byte & 0x7fu) << (7 * i);
    if (byte < 0x80u) return value;
  }
  throw FormatError(name_ + ": length of message " + std::to_string(read_), "malformed",
                    "a varint of at most 9 bytes");
}

bool begins_with(std::span<const std::byte> bytes, std::string_view magic) {
  return bytes.size() >= magic.size() && std::memcmp(bytes.data(), magic.data(), magic.size()) == 0;
}

void parse_message(std::span<const std::byte> bytes, const std::string& what,
                   google::protobuf::MessageLite& message) {
  const google::protobuf::LogSilencer silence;
  if (bytes.size() > static_cast<std::size_t>(std::numeric_limits<int>::max()) ||
      !message.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) {
    throw FormatError(what, "malformed", "a protobuf message of type " + message.GetTypeName());
  }
}

}  // namespace mla::proto
