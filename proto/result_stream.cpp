#include <cstring>

#include "core/error.h"
#include "proto/batch.pb.h"
#include "proto/batch_codec.h"
#include "proto/file_io.h"
#include "proto/message_stream.h"
#include "proto/result_sinks.h"

namespace mla::proto {
namespace {

class StreamSink : public ResultWriter::Sink {
 public:
  StreamSink(const std::filesystem::path& path, const Batch& batch)
      : file_(path),
        stream_(kResultMagic, [this](std::span<const std::byte> bytes) { file_.write(bytes); }) {
    meshmla::ResultHeader header;
    header.set_version(kFormatVersion);
    encode_shape(batch.shape, *header.mutable_shape());
    header.set_out_dtype(encode_dtype(batch.out_dtype));
    header.set_num_results(batch.requests.size());
    stream_.append(header, kMaxMessageBytes, "results: header");
  }

  void append(const mla::Result& result) override {
    meshmla::Result message;
    message.set_custom_id(result.custom_id);
    message.set_query_len(result.query_len);
    message.set_h_q(result.h_q);
    message.set_d_v(result.d_v);
    message.set_out_dtype(encode_dtype(result.out_dtype));
    message.set_out(result.out.data(), result.out.size());
    message.mutable_lse()->Add(result.lse.begin(), result.lse.end());
    if (result.error.empty()) message.set_checksum(checksum_of(result));
    message.set_error(result.error);
    stream_.append(message, kMaxResultMessageBytes, "result '" + result.custom_id + "'");
  }

  void commit() override {
    stream_.finish();
    file_.commit();
  }

 private:
  AtomicFile file_;
  MessageStreamWriter stream_;
};

mla::Result decode_result(const meshmla::Result& message, const std::string& name) {
  const std::string field = name + ": result '" + message.custom_id() + "'";
  mla::Result result{
      .custom_id = message.custom_id(),
      .query_len = message.query_len(),
      .h_q = message.h_q(),
      .d_v = message.d_v(),
      .out_dtype = decode_dtype(message.out_dtype(), DType::kBf16, field + ".out_dtype"),
      .out = std::vector<std::byte>(message.out().size()),
      .lse = {message.lse().begin(), message.lse().end()},
      .error = message.error()};
  if (!result.out.empty()) {
    std::memcpy(result.out.data(), message.out().data(), result.out.size());
  }
  // Unsigned, so that absurd sizes wrap around and differ.
  const auto lse_count =
      static_cast<std::uint64_t>(result.query_len) * static_cast<std::uint64_t>(result.h_q);
  const auto out_bytes = lse_count * static_cast<std::uint64_t>(result.d_v) *
                         static_cast<std::uint64_t>(size_of(result.out_dtype));
  if (result.error.empty() && (result.lse.size() != lse_count || result.out.size() != out_bytes)) {
    throw FormatError(field,
                      std::to_string(result.out.size()) + " bytes of out and " +
                          std::to_string(result.lse.size()) + " lse",
                      std::to_string(out_bytes) + " and " + std::to_string(lse_count));
  }
  if (result.error.empty() && checksum_of(result) != message.checksum()) {
    throw FormatError(field, "damaged", "the data that its checksum was taken of");
  }
  return result;
}

/// A result must fit into one protobuf message, its other fields included.
void check_message_sizes(const Batch& batch) {
  constexpr std::int64_t kOtherFields = 1 << 20;
  for (const mla::Request& request : batch.requests) {
    const std::int64_t bytes = out_bytes_of(batch, request) + 4 * lse_count_of(batch, request);
    if (bytes > kMaxResultMessageBytes - kOtherFields) {
      throw Unsupported("result '" + request.custom_id + "'", std::to_string(bytes) + " bytes",
                        "less than 2 GiB (write .safetensors instead)");
    }
  }
}

}  // namespace

std::unique_ptr<ResultWriter::Sink> make_stream_sink(const std::filesystem::path& path,
                                                     const Batch& batch) {
  check_message_sizes(batch);
  return std::make_unique<StreamSink>(path, batch);
}

ResultSet read_result_stream(std::span<const std::byte> bytes, const std::string& name) {
  MessageStreamReader stream(bytes, kResultMagic, name);
  const auto header_bytes = stream.next(kMaxMessageBytes);
  if (!header_bytes) throw FormatError(name, "no messages", "a header");
  meshmla::ResultHeader header;
  parse_message(*header_bytes, name + ": header", header);
  check_version(header.version(), name);
  ResultSet set;
  while (const auto message_bytes = stream.next(kMaxResultMessageBytes)) {
    meshmla::Result message;
    parse_message(*message_bytes, name + ": result " + std::to_string(set.results.size()), message);
    set.results.push_back(decode_result(message, name));
  }
  if (set.results.size() != header.num_results()) {
    throw FormatError(name, std::to_string(set.results.size()) + " results",
                      std::to_string(header.num_results()) + ", as its header says");
  }
  return set;
}

}  // namespace mla::proto
