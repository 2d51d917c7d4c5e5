#include "proto/batch_text.h"

#include <algorithm>

#include <google/protobuf/io/tokenizer.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>
#include <google/protobuf/stubs/logging.h>
#include <google/protobuf/text_format.h>
#include <google/protobuf/util/json_util.h>

#include "core/error.h"
#include "proto/batch.pb.h"
#include "proto/batch_codec.h"
#include "proto/json_reader.h"

namespace mla::proto {
namespace {

/// Keeps the first error of the text parser.
class FirstError : public google::protobuf::io::ErrorCollector {
 public:
  void AddError(int line, int column, const std::string& message) override {
    if (!text_.empty()) return;
    text_ = std::to_string(line + 1) + ":" + std::to_string(column + 1) + ": " + message;
  }
  const std::string& text() const { return text_; }

 private:
  std::string text_;
};

std::string one_line(std::string text) {
  std::ranges::replace_if(
      text, [](char c) { return c == '\n' || c == '\r'; }, ' ');
  return text;
}

Batch decode_file(const meshmla::BatchFile& file, const std::string& name) {
  Batch batch = decode_header(file.header(), name);
  check_request_count(static_cast<std::uint64_t>(file.requests_size()), name);
  batch.requests.reserve(static_cast<std::size_t>(file.requests_size()));
  for (int i = 0; i < file.requests_size(); ++i) {
    batch.requests.push_back(decode_request(file.requests(i), batch, i, name));
  }
  return batch;
}

meshmla::BatchFile encode_file(const Batch& batch) {
  check_request_count(batch.requests.size(), "batch");
  meshmla::BatchFile file;
  encode_header(batch, *file.mutable_header());
  for (const Request& request : batch.requests) encode_request(request, *file.add_requests());
  return file;
}

}  // namespace

Batch parse_batch_text(std::string_view text, const std::string& name) {
  const google::protobuf::LogSilencer silence;
  FirstError errors;
  google::protobuf::TextFormat::Parser parser;
  parser.RecordErrorsTo(&errors);
  google::protobuf::io::ArrayInputStream stream(text.data(), static_cast<int>(text.size()));
  meshmla::BatchFile file;
  if (!parser.Parse(&stream, &file)) {
    throw FormatError(name + ":" + one_line(errors.text()), "not parsed",
                      "a BatchFile in protobuf text format");
  }
  return decode_file(file, name);
}

Batch parse_batch_json(std::string_view json, const std::string& name) {
  constexpr const char* kExpected = "a BatchFile in protobuf JSON";
  // Protobuf's own parser does not tell the place of an error of syntax.
  const auto discard = [](int, nlohmann::json::parse_event_t, const auto&) { return false; };
  try {
    [[maybe_unused]] const auto nothing = nlohmann::json::parse(json, discard);
  } catch (const nlohmann::json::exception& error) {
    throw FormatError(name, one_line(reason_of(error)), kExpected);
  }
  const google::protobuf::LogSilencer silence;
  meshmla::BatchFile file;
  const auto status = google::protobuf::util::JsonStringToMessage(
      {json.data(), json.size()}, &file, google::protobuf::util::JsonParseOptions());
  if (!status.ok()) {
    throw FormatError(name, one_line(std::string(status.message())), kExpected);
  }
  return decode_file(file, name);
}

std::string print_batch_text(const Batch& batch) {
  google::protobuf::TextFormat::Printer printer;
  printer.SetUseShortRepeatedPrimitives(true);
  std::string text;
  printer.PrintToString(encode_file(batch), &text);
  return text;
}

std::string print_batch_json(const Batch& batch) {
  google::protobuf::util::JsonPrintOptions options;
  options.add_whitespace = true;
  options.preserve_proto_field_names = true;
  options.always_print_primitive_fields = false;
  std::string json;
  const auto status =
      google::protobuf::util::MessageToJsonString(encode_file(batch), &json, options);
  if (!status.ok()) throw FormatError("batch", one_line(status.ToString()), "printable as JSON");
  return json;
}

}  // namespace mla::proto
