#include <algorithm>
#include <array>
#include <cstring>
#include <limits>
#include <set>
#include <utility>

#include <nlohmann/json.hpp>

#include "core/error.h"
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

/// A value as an error shows it: on one line, and not too long.
std::string shown(const json& value) {
  constexpr std::size_t kMost = 60;
  std::string text = value.dump(-1, ' ', true, json::error_handler_t::replace);
  if (text.size() > kMost) text = text.substr(0, kMost) + "...";
  return text;
}

/// Parses the header; unlike the parser's default, an object may have a key once only.
json parse_header(std::string_view text, const std::string& name) {
  std::vector<std::set<std::string>> keys;
  const auto check = [&](int depth, json::parse_event_t event, json& parsed) {
    if (depth > kMaxHeaderDepth) {
      throw FormatError(name + ": header", "nested too deep", "an object of objects");
    }
    if (event == json::parse_event_t::object_start) {
      keys.emplace_back();
    } else if (event == json::parse_event_t::object_end) {
      keys.pop_back();
    } else if (event == json::parse_event_t::key &&
               !keys.back().insert(parsed.get<std::string>()).second) {
      throw FormatError(name + ": header", "key " + shown(parsed) + " twice", "each key once");
    }
    return true;
  };
  try {
    return json::parse(text, check);
  } catch (const json::exception& error) {
    std::string what = error.what();
    what.erase(0, what.find("] ") + 2);  // "[json.exception.parse_error.101] "
    throw FormatError(name + ": header", what, "a JSON object in UTF-8");
  }
}

std::int64_t to_int64(const json& value, const std::string& field) {
  constexpr auto kMost = static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max());
  if (!value.is_number_unsigned() || value.get<std::uint64_t>() > kMost) {
    throw FormatError(field, shown(value), "an integer of at least 0");
  }
  return value.get<std::int64_t>();
}

const json& member(const json& entry, const char* key, const std::string& field) {
  const auto found = entry.find(key);
  if (found == entry.end()) throw FormatError(field, std::string("no ") + key, "one");
  return *found;
}

std::vector<std::int64_t> parse_integers(const json& array, const std::string& field) {
  if (!array.is_array()) throw FormatError(field, shown(array), "an array of integers");
  std::vector<std::int64_t> values;
  for (std::size_t i = 0; i < array.size(); ++i) {
    values.push_back(to_int64(array[i], field + "[" + std::to_string(i) + "]"));
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

TensorInfo parse_tensor(const std::string& tensor_name, const json& entry,
                        const std::string& field) {
  if (!entry.is_object()) throw FormatError(field, shown(entry), "an object");
  TensorInfo tensor{.name = tensor_name, .dtype = {}, .shape = {}, .bytes = {}};
  const json& dtype = member(entry, "dtype", field);
  if (dtype.is_string()) tensor.dtype = dtype.get<std::string>();
  if (safetensors_size_of(tensor.dtype) == 0) {
    throw FormatError(field + ".dtype", shown(dtype), "a dtype of the format, such as \"BF16\"");
  }
  tensor.shape = parse_integers(member(entry, "shape", field), field + ".shape");
  const std::vector<std::int64_t> offsets =
      parse_integers(member(entry, "data_offsets", field), field + ".data_offsets");
  if (offsets.size() != 2 || offsets[0] > offsets[1]) {
    throw FormatError(field + ".data_offsets", shape_text(offsets), "[begin, end], begin <= end");
  }
  tensor.bytes = {offsets[0], offsets[1]};
  const std::int64_t expected = byte_size(tensor, field);
  if (tensor.bytes.size() != expected) {
    throw FormatError(field + ".data_offsets", std::to_string(tensor.bytes.size()) + " bytes",
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
  const json parsed = parse_header(header(), name);
  for (const auto& [key, value] : parsed.items()) {
    if (key != "__metadata__") {
      tensors_.push_back(parse_tensor(key, value, name + ": tensor '" + key + "'"));
      continue;
    }
    if (!value.is_object()) throw FormatError(name + ": __metadata__", shown(value), "an object");
    for (const auto& [item, text] : value.items()) {
      if (!text.is_string()) {
        throw FormatError(name + ": __metadata__." + item, shown(text), "a string");
      }
      metadata_[item] = text.get<std::string>();
    }
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
