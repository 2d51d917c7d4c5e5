#include "proto/batch_file.h"

#include <algorithm>
#include <cctype>
#include <string>

#include "core/error.h"
#include "proto/batch.pb.h"
#include "proto/batch_codec.h"
#include "proto/batch_text.h"
#include "proto/file_io.h"
#include "proto/message_stream.h"

namespace mla::proto {
namespace {

constexpr std::string_view kBatchMagic = "MESHMLAB";

/// The first bytes of a file, as an error shows them.
std::string beginning(std::string_view text) {
  if (text.empty()) return "is empty";
  std::string shown(text.substr(0, kBatchMagic.size()));
  std::ranges::replace_if(
      shown, [](unsigned char c) { return std::isprint(c) == 0; }, '.');
  return "begins with '" + shown + "'";
}

template <class Sink>
void encode_to(const Batch& batch, Sink sink) {
  check_request_count(batch.requests.size(), "batch");
  MessageStreamWriter stream(kBatchMagic, sink);
  meshmla::Header header;
  encode_header(batch, header);
  stream.append(header, kMaxMessageBytes, "batch: header");
  for (const mla::Request& request : batch.requests) {
    meshmla::Request message;
    encode_request(request, message);
    stream.append(message, kMaxMessageBytes, "batch: request '" + request.custom_id + "'");
  }
  stream.finish();
}

}  // namespace

BatchFormat batch_format_of(const std::filesystem::path& path) {
  const std::string extension = path.extension().string();
  if (extension == ".txtpb" || extension == ".textproto") return BatchFormat::kText;
  if (extension == ".json") return BatchFormat::kJson;
  return BatchFormat::kBinary;
}

Batch read_batch(const std::filesystem::path& path) {
  const MappedFile file(path, kMaxBatchFileBytes);
  const std::string name = "batch '" + path.string() + "'";
  if (begins_with(file.bytes(), kBatchMagic)) return decode_batch(file.bytes(), name);
  switch (batch_format_of(path)) {
    case BatchFormat::kText:
      return parse_batch_text(file.text(), name);
    case BatchFormat::kJson:
      return parse_batch_json(file.text(), name);
    case BatchFormat::kBinary:
      break;
  }
  throw FormatError("batch", "file '" + path.string() + "' " + beginning(file.text()),
                    "the magic MESHMLAB, or a .txtpb or .json file");
}

Batch decode_batch(std::span<const std::byte> bytes, std::string_view name) {
  const std::string prefix(name);
  MessageStreamReader stream(bytes, kBatchMagic, prefix);
  const auto header_bytes = stream.next(kMaxMessageBytes);
  if (!header_bytes) throw FormatError(prefix, "no messages", "a header");
  meshmla::Header header;
  parse_message(*header_bytes, prefix + ": header", header);
  Batch batch = decode_header(header, name);
  check_request_count(stream.count() - 1, name);
  while (const auto request_bytes = stream.next(kMaxMessageBytes)) {
    const auto position = static_cast<std::int64_t>(batch.requests.size());
    if (position == kMaxRequests) check_request_count(kMaxRequests + 1, name);
    meshmla::Request request;
    parse_message(*request_bytes, prefix + ": requests[" + std::to_string(position) + "]", request);
    batch.requests.push_back(decode_request(request, batch, position, name));
  }
  return batch;
}

std::vector<std::byte> encode_batch(const Batch& batch) {
  std::vector<std::byte> bytes;
  encode_to(batch, [&](std::span<const std::byte> part) {
    if (static_cast<std::int64_t>(bytes.size() + part.size()) > kMaxBatchFileBytes) {
      throw FormatError("batch", "more than " + std::to_string(kMaxBatchFileBytes) + " bytes",
                        "no more, or readers refuse it");
    }
    bytes.insert(bytes.end(), part.begin(), part.end());
  });
  return bytes;
}

void write_batch(const Batch& batch, const std::filesystem::path& path, BatchFormat format) {
  AtomicFile file(path);
  switch (format) {
    case BatchFormat::kBinary:
      file.write(encode_batch(batch));
      break;
    case BatchFormat::kText:
      file.write(print_batch_text(batch));
      break;
    case BatchFormat::kJson:
      file.write(print_batch_json(batch));
      break;
  }
  file.commit();
}

}  // namespace mla::proto
