#include "proto/result_file.h"

#include <algorithm>

#include "core/error.h"
#include "core/utf8.h"
#include "proto/file_io.h"
#include "proto/hash.h"
#include "proto/message_stream.h"
#include "proto/result_sinks.h"

namespace mla::proto {
namespace {

void check_sizes(const Batch& batch, const Request& request, const Result& result) {
  const std::string field = "result '" + result.custom_id + "'";
  if (result.custom_id != request.custom_id) {
    throw InvalidArgument(field, "out of turn", "'" + request.custom_id + "' next");
  }
  const bool same_sizes = result.query_len == request.query_len && result.h_q == batch.shape.h_q &&
                          result.d_v == batch.shape.d_v && result.out_dtype == batch.out_dtype;
  if (!same_sizes || !result.error.empty()) {
    throw InvalidArgument(field, "sizes or a dtype that are not the batch's", "the batch's");
  }
  const auto out_bytes = static_cast<std::int64_t>(result.out.size());
  const auto lse_count = static_cast<std::int64_t>(result.lse.size());
  if (out_bytes != out_bytes_of(batch, request) || lse_count != lse_count_of(batch, request)) {
    throw InvalidArgument(
        field,
        std::to_string(out_bytes) + " bytes of out and " + std::to_string(lse_count) + " lse",
        std::to_string(out_bytes_of(batch, request)) + " and " +
            std::to_string(lse_count_of(batch, request)));
  }
}

/// Error texts may quote names that are no UTF-8, which the forms could not hold.
std::map<std::int64_t, std::string> readable(std::map<std::int64_t, std::string> texts) {
  for (auto& [position, text] : texts) {
    if (text.empty()) text = "unknown error";
    if (!find_invalid_utf8(text)) continue;
    std::replace_if(
        text.begin(), text.end(), [](char c) { return static_cast<signed char>(c) < 0; }, '?');
  }
  return texts;
}

std::unique_ptr<ResultWriter::Sink> make_sink(const std::filesystem::path& path,
                                              ResultFormat format, const Batch& batch,
                                              const std::map<std::int64_t, std::string>& failed) {
  return format == ResultFormat::kStream ? make_stream_sink(path, batch)
                                         : make_safetensors_sink(path, batch, failed);
}

}  // namespace

ResultFormat result_format_of(const std::filesystem::path& path) {
  return path.extension() == ".safetensors" ? ResultFormat::kSafetensors : ResultFormat::kStream;
}

std::uint64_t checksum_of(const Result& result) {
  Xxh3Stream hash;
  hash.update(result.out);
  hash.update(std::as_bytes(std::span(result.lse)));
  return hash.digest();
}

std::int64_t out_bytes_of(const Batch& batch, const Request& request) {
  return lse_count_of(batch, request) * batch.shape.d_v * size_of(batch.out_dtype);
}

std::int64_t lse_count_of(const Batch& batch, const Request& request) {
  return request.query_len * batch.shape.h_q;
}

ResultWriter::ResultWriter(const std::filesystem::path& path, ResultFormat format,
                           const Batch& batch, std::map<std::int64_t, std::string> failed)
    : batch_(batch),
      failed_(readable(std::move(failed))),
      sink_(make_sink(path, format, batch, failed_)) {
  write_failed();
}

ResultWriter::~ResultWriter() = default;

void ResultWriter::append(const Result& result) {
  if (next_ == static_cast<std::int64_t>(batch_.requests.size())) {
    throw InvalidArgument("result '" + result.custom_id + "'", "one too many",
                          "one per request that has not failed");
  }
  check_sizes(batch_, batch_.requests[next_], result);
  sink_->append(result);
  ++next_;
  write_failed();
}

void ResultWriter::write_failed() {
  for (auto entry = failed_.find(next_); entry != failed_.end() && entry->first == next_;
       ++entry, ++next_) {
    const Request& request = batch_.requests.at(next_);
    sink_->append({.custom_id = request.custom_id,
                   .query_len = request.query_len,
                   .h_q = batch_.shape.h_q,
                   .d_v = batch_.shape.d_v,
                   .out_dtype = batch_.out_dtype,
                   .out = {},
                   .lse = {},
                   .error = entry->second});
  }
}

void ResultWriter::commit() {
  const auto expected = static_cast<std::int64_t>(batch_.requests.size());
  if (next_ != expected) {
    throw InvalidArgument("results", std::to_string(next_), std::to_string(expected));
  }
  sink_->commit();
}

const Result* ResultSet::find(std::string_view custom_id) const {
  for (const Result& result : results) {
    if (result.custom_id == custom_id) return &result;
  }
  return nullptr;
}

ResultSet read_results(const std::filesystem::path& path) {
  const std::string name = "results '" + path.string() + "'";
  {
    const MappedFile file(path);
    if (begins_with(file.bytes(), kResultMagic)) return read_result_stream(file.bytes(), name);
  }
  if (result_format_of(path) == ResultFormat::kSafetensors) return read_result_tensors(path);
  throw FormatError(name, "another beginning", "the magic MESHMLAR, or a .safetensors file");
}

}  // namespace mla::proto
