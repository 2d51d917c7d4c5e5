#include <algorithm>
#include <array>
#include <cstring>
#include <limits>
#include <utility>

#include "core/error.h"
#include "proto/json_reader.h"
#include "proto/safetensors.h"

namespace mla::proto {
namespace {

using nlohmann::json;

constexpr std::int64_t kLengthBytes = 8;
constexpr int kMaxHeaderDepth = 3;  // the header, a tensor, its shape

constexpr std::array<std::pair<std::string_view, std::int64_t>, 15> kDtypes{{{"BOOL", 1},
                                                                             {"U8", 1},
                                                                             {"I8", 1},
                                                                             {"F8_E5M2", 1},
                                                                             {"F8_E4M3", 1},
                                                                             {"I16", 2},
                                                                             {"U16", 2},
                                                                             {"F16", 2},
                                                                             {"BF16", 2},
                                                                             {"I32", 4},
                                                                             {"U32", 4},
                                                                             {"F32", 4},
                                                                             {"F64", 8},
                                                                             {"I64", 8},
                                                                             {"U64", 8}}};

std::vector<std::int64_t> parse_integers(const JsonField& array) {
  std::vector<std::int64_t> values;
  for (std::size_t i = 0; i < array.size(); ++i) {
    values.push_back(array.at(i).integer(0, std::numeric_limits<std::int64_t>::max()));
  }
  return values;
}

/// Bytes that dtype and shape ask for.
std::int64_t byte_size(const TensorInfo& tensor, const std::string& field) {
  std::int64_t bytes = safetensors_size_of(tensor.dtype);
  bool overflow = false;
  for (const std::int64_t size : tensor.shape) {
    overflow = __builtin_mul_overflow(bytes, size, &bytes) || overflow;
  }
  const bool empty = std::count(tensor.shape.begin(), tensor.shape.end(), 0) > 0;
  if (empty) return 0;
  if (overflow) {
    throw FormatError(field + ".shape", shape_text(tensor.shape), "fewer than 2^63 bytes");
  }
  return bytes;
}

TensorInfo parse_tensor(const std::string& tensor_name, const JsonField& entry) {
  const JsonField dtype = entry.at("dtype");
  TensorInfo tensor{.name = tensor_name, .dtype = dtype.string(), .shape = {}, .bytes = {}};
  if (safetensors_size_of(tensor.dtype) == 0) {
    dtype.expected("a dtype of the format, such as \"BF16\"");
  }
  tensor.shape = parse_integers(entry.at("shape"));
  const JsonField field = entry.at("data_offsets");
  const std::vector<std::int64_t> offsets = parse_integers(field);
  if (offsets.size() != 2 || offsets[0] > offsets[1]) {
    throw FormatError(field.name(), shape_text(offsets), "[begin, end], begin <= end");
  }
  tensor.bytes = {offsets[0], offsets[1]};
  const std::int64_t expected = byte_size(tensor, entry.name());
  if (tensor.bytes.size() != expected) {
    throw FormatError(field.name(), std::to_string(tensor.bytes.size()) + " bytes",
                      std::to_string(expected) + " for " + tensor.dtype + " of shape " +
                          shape_text(tensor.shape));
  }
  return tensor;
}

/// The tensors, sorted, must follow each other from the first byte to the last.
void check_coverage(const std::vector<TensorInfo>& tensors, std::int64_t data_bytes,
                    const std::string& name) {
  std::int64_t covered = 0;
  for (const TensorInfo& tensor : tensors) {
    const std::string field = name + ": tensor '" + tensor.name + "'";
    if (tensor.bytes.end > data_bytes) {
      throw FormatError(field, "ends at byte " + std::to_string(tensor.bytes.end),
                        "at most " + std::to_string(data_bytes) + ", where the file ends");
    }
    if (tensor.bytes.begin != covered) {
      throw FormatError(field, "begins at byte " + std::to_string(tensor.bytes.begin),
                        std::to_string(covered) + (tensor.bytes.begin < covered
                                                       ? ", for tensors must not overlap"
                                                       : ", for there must be no holes"));
    }
    covered = tensor.bytes.end;
  }
  if (covered != data_bytes) {
    throw FormatError(name, std::to_string(data_bytes) + " bytes of data",
                      std::to_string(covered) + ", where the last tensor ends");
  }
}

}  // namespace

std::int64_t safetensors_size_of(std::string_view dtype) {
  for (const auto& [name, bytes] : kDtypes) {
    if (name == dtype) return bytes;
  }
  return 0;
}

std::string_view safetensors_name_of(DType dtype) {
  switch (dtype) {
    case DType::kBf16:
      return "BF16";
    case DType::kFp16:
      return "F16";
    case DType::kFp32:
      return "F32";
  }
  return "?";
}

std::string shape_text(const std::vector<std::int64_t>& shape) {
  std::string text = "[";
  for (const std::int64_t size : shape) {
    if (text.size() > 1) text += ", ";
    text += std::to_string(size);
  }
  return text + "]";
}

SafetensorsFile::SafetensorsFile(const std::filesystem::path& path) : file_(path) {
  read_header();
}

std::string_view SafetensorsFile::header() const {
  return {reinterpret_cast<const char*>(file_.bytes().data()) + kLengthBytes,
          static_cast<std::size_t>(data_begin_ - kLengthBytes)};
}

void SafetensorsFile::read_header() {
  const std::string name = "safetensors '" + path().string() + "'";
  const auto file_bytes = static_cast<std::int64_t>(file_.bytes().size());
  if (file_bytes < kLengthBytes) {
    throw FormatError(name, std::to_string(file_bytes) + " bytes", "at least 8");
  }
  std::uint64_t header_bytes = 0;
  std::memcpy(&header_bytes, file_.bytes().data(), sizeof header_bytes);
  const std::int64_t most = std::min(kMaxSafetensorsHeaderBytes, file_bytes - kLengthBytes);
  if (header_bytes > static_cast<std::uint64_t>(most)) {
    throw FormatError(name + ": header length", std::to_string(header_bytes),
                      "at most " + std::to_string(most));
  }
  data_begin_ = kLengthBytes + static_cast<std::int64_t>(header_bytes);
  if (!header().starts_with('{')) {
    throw FormatError(name + ": header", header().empty() ? "empty" : "begins otherwise",
                      "a JSON object, so '{' first");
  }
  const json parsed =
      parse_json(header(), name + ": header", kMaxHeaderDepth, RepeatedKeys::kRefused);
  for (const auto& [key, value] : parsed.items()) {
    if (key != "__metadata__") {
      tensors_.push_back(parse_tensor(key, {value, name + ": tensor '" + key + "'"}));
      continue;
    }
    const JsonField metadata(value, name + ": __metadata__");
    if (!value.is_object()) metadata.expected("an object");
    for (const auto& [item, text] : value.items()) metadata_[item] = metadata.at(item).string();
  }
  std::sort(tensors_.begin(), tensors_.end(), [](const TensorInfo& a, const TensorInfo& b) {
    return std::pair(a.bytes.begin, a.bytes.end) < std::pair(b.bytes.begin, b.bytes.end);
  });
  check_coverage(tensors_, file_bytes - data_begin_, name);
  for (std::size_t i = 0; i < tensors_.size(); ++i) index_[tensors_[i].name] = i;
}

const TensorInfo* SafetensorsFile::find(std::string_view name) const {
  const auto found = index_.find(name);
  return found == index_.end() ? nullptr : &tensors_[found->second];
}

std::span<const std::byte> SafetensorsFile::data(const TensorInfo& tensor) const {
  return file_.bytes().subspan(static_cast<std::size_t>(data_begin_ + tensor.bytes.begin),
                               static_cast<std::size_t>(tensor.bytes.size()));
}

}  // namespace mla::proto
