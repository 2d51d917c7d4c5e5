#include <cstring>

#include <nlohmann/json.hpp>

#include "core/error.h"
#include "proto/batch_codec.h"
#include "proto/result_sinks.h"
#include "proto/safetensors.h"

namespace mla::proto {
namespace {

using nlohmann::json;

constexpr const char* kFormatKey = "format";
constexpr const char* kFormatValue = "meshmla-results";
constexpr const char* kRequestsKey = "requests";
constexpr const char* kChecksums = "checksums";
constexpr std::int64_t kChecksumBytes = 8;
constexpr std::string_view kOutPrefix = "out.";
constexpr std::string_view kLsePrefix = "lse.";

std::string tensor_name(std::string_view prefix, const std::string& custom_id) {
  return std::string(prefix) + custom_id;
}

std::vector<TensorSpec> tensor_specs(const Batch& batch,
                                     const std::map<std::int64_t, std::string>& failed) {
  std::vector<TensorSpec> specs;
  for (std::size_t i = 0; i < batch.requests.size(); ++i) {
    const Request& request = batch.requests[i];
    if (failed.contains(static_cast<std::int64_t>(i))) continue;
    specs.push_back({tensor_name(kOutPrefix, request.custom_id),
                     std::string(safetensors_name_of(batch.out_dtype)),
                     {request.query_len, batch.shape.h_q, batch.shape.d_v}});
    specs.push_back(
        {tensor_name(kLsePrefix, request.custom_id), "F32", {request.query_len, batch.shape.h_q}});
  }
  const auto results = static_cast<std::int64_t>(specs.size() / 2);
  specs.push_back({kChecksums, "U8", {results, kChecksumBytes}});
  return specs;
}

std::map<std::string, std::string> metadata_of(const Batch& batch,
                                               const std::map<std::int64_t, std::string>& failed) {
  nlohmann::ordered_json requests = nlohmann::ordered_json::array();
  for (std::size_t i = 0; i < batch.requests.size(); ++i) {
    const Request& request = batch.requests[i];
    nlohmann::ordered_json entry{{"custom_id", request.custom_id},
                                 {"query_len", request.query_len}};
    const auto failure = failed.find(static_cast<std::int64_t>(i));
    if (failure != failed.end()) entry["error"] = failure->second;
    requests.push_back(std::move(entry));
  }
  return {{kFormatKey, kFormatValue},
          {"version", std::to_string(kFormatVersion)},
          {"h_q", std::to_string(batch.shape.h_q)},
          {"d_v", std::to_string(batch.shape.d_v)},
          {"out_dtype", std::string(safetensors_name_of(batch.out_dtype))},
          {kRequestsKey,
           requests.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace)}};
}

class SafetensorsSink : public ResultWriter::Sink {
 public:
  SafetensorsSink(const std::filesystem::path& path, const Batch& batch,
                  const std::map<std::int64_t, std::string>& failed)
      : writer_(path, tensor_specs(batch, failed), metadata_of(batch, failed)) {}

  void append(const Result& result) override {
    if (!result.error.empty()) return;  // told in the metadata
    writer_.write(result.out);
    writer_.write(std::as_bytes(std::span(result.lse)));
    checksums_.push_back(checksum_of(result));
  }

  void commit() override {
    writer_.write(std::as_bytes(std::span(checksums_)));
    writer_.commit();
  }

 private:
  SafetensorsWriter writer_;
  std::vector<std::uint64_t> checksums_;
};

/// What the metadata says of one request.
struct Entry {
  std::string custom_id;
  std::int64_t query_len = 0;
  std::string error;
};

std::string metadata_value(const SafetensorsFile& file, const std::string& key) {
  const auto found = file.metadata().find(key);
  return found == file.metadata().end() ? std::string() : found->second;
}

/// The requests in the batch's order; those of another maker's file in the order of their bytes.
std::vector<Entry> entries_of(const SafetensorsFile& file, const std::string& name) {
  std::vector<Entry> entries;
  if (metadata_value(file, kFormatKey) != kFormatValue) {
    for (const TensorInfo& tensor : file.tensors()) {
      if (tensor.name.starts_with(kOutPrefix)) {
        entries.push_back({tensor.name.substr(kOutPrefix.size()), 0, {}});
      }
    }
    return entries;
  }
  try {
    for (const json& entry : json::parse(metadata_value(file, kRequestsKey))) {
      entries.push_back({entry.at("custom_id").get<std::string>(),
                         entry.at("query_len").get<std::int64_t>(),
                         entry.value("error", std::string())});
    }
  } catch (const json::exception&) {
    throw FormatError(name + ": metadata 'requests'", "malformed",
                      "a JSON array of {custom_id, query_len, error}");
  }
  return entries;
}

std::int64_t metadata_number(const SafetensorsFile& file, const std::string& key) {
  return std::strtoll(metadata_value(file, key).c_str(), nullptr, 10);
}

const TensorInfo& find_tensor(const SafetensorsFile& file, const std::string& tensor,
                              const std::string& name) {
  const TensorInfo* const found = file.find(tensor);
  if (found == nullptr) throw FormatError(name, "no tensor '" + tensor + "'", "one");
  return *found;
}

DType parse_dtype(const std::string& text, const std::string& field) {
  for (const DType dtype : {DType::kBf16, DType::kFp16, DType::kFp32}) {
    if (safetensors_name_of(dtype) == text) return dtype;
  }
  throw FormatError(field, "'" + text + "'", "BF16, F16 or F32");
}

Result read_tensors(const SafetensorsFile& file, const std::string& id, const std::string& name) {
  const std::string field = name + ": result '" + id + "'";
  const std::string out_name = tensor_name(kOutPrefix, id);
  const std::string lse_name = tensor_name(kLsePrefix, id);
  const TensorInfo& out = find_tensor(file, out_name, field);
  const TensorInfo& lse = find_tensor(file, lse_name, field);
  if (out.shape.size() != 3 || lse.dtype != "F32" ||
      lse.shape != std::vector(out.shape.begin(), out.shape.begin() + 2)) {
    throw FormatError(field, "out " + shape_text(out.shape) + ", lse " + shape_text(lse.shape),
                      "out [query_len, h_q, d_v], lse [query_len, h_q] of F32");
  }
  const std::span<const std::byte> out_bytes = file.data(out);
  const std::span<const std::byte> lse_bytes = file.data(lse);
  Result result{.custom_id = id,
                .query_len = out.shape[0],
                .h_q = out.shape[1],
                .d_v = out.shape[2],
                .out_dtype = parse_dtype(out.dtype, field + ": out"),
                .out = {out_bytes.begin(), out_bytes.end()},
                .lse = std::vector<float>(lse_bytes.size() / sizeof(float)),
                .error = {}};
  if (!lse_bytes.empty()) std::memcpy(result.lse.data(), lse_bytes.data(), lse_bytes.size());
  return result;
}

/// Verifies the checksums of all results that are no errors, if the file has any.
void verify_checksums(const SafetensorsFile& file, const ResultSet& set, const std::string& name) {
  if (metadata_value(file, kFormatKey) != kFormatValue) return;
  std::span<const std::byte> checksums = file.data(find_tensor(file, kChecksums, name));
  for (const Result& result : set.results) {
    if (!result.error.empty()) continue;
    std::uint64_t expected = 0;
    if (checksums.size() < sizeof expected) {
      throw FormatError(name + ": checksums", "too few", "one per result");
    }
    std::memcpy(&expected, checksums.data(), sizeof expected);
    checksums = checksums.subspan(sizeof expected);
    if (checksum_of(result) != expected) {
      throw FormatError(name + ": result '" + result.custom_id + "'", "damaged",
                        "the data that its checksum was taken of");
    }
  }
}

}  // namespace

std::unique_ptr<ResultWriter::Sink> make_safetensors_sink(
    const std::filesystem::path& path, const Batch& batch,
    const std::map<std::int64_t, std::string>& failed) {
  return std::make_unique<SafetensorsSink>(path, batch, failed);
}

ResultSet read_result_tensors(const std::filesystem::path& path) {
  const SafetensorsFile file(path);
  const std::string name = "results '" + path.string() + "'";
  ResultSet set;
  for (const Entry& entry : entries_of(file, name)) {
    if (entry.error.empty()) {
      set.results.push_back(read_tensors(file, entry.custom_id, name));
      continue;
    }
    set.results.push_back(
        {.custom_id = entry.custom_id,
         .query_len = entry.query_len,
         .h_q = metadata_number(file, "h_q"),
         .d_v = metadata_number(file, "d_v"),
         .out_dtype = parse_dtype(metadata_value(file, "out_dtype"), name + ": out_dtype"),
         .out = {},
         .lse = {},
         .error = entry.error});
  }
  verify_checksums(file, set, name);
  return set;
}

}  // namespace mla::proto
