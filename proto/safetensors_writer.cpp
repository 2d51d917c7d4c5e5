#include <cstring>
#include <set>
#include <utility>

#include <nlohmann/json.hpp>

#include "core/error.h"
#include "proto/safetensors.h"

namespace mla::proto {
namespace {

constexpr std::size_t kDataAlignment = 8;

struct Layout {
  std::string header;
  std::int64_t data_bytes = 0;
};

Layout lay_out(const std::vector<TensorSpec>& tensors,
               const std::map<std::string, std::string>& metadata) {
  Layout layout;
  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  std::set<std::string_view> names{"__metadata__"};
  nlohmann::ordered_json::object_t& entries = header.get_ref<nlohmann::ordered_json::object_t&>();
  for (const TensorSpec& tensor : tensors) {
    if (!names.insert(tensor.name).second) {
      throw InvalidArgument("safetensors", "tensor '" + tensor.name + "' twice", "each once");
    }
    std::int64_t bytes = safetensors_size_of(tensor.dtype);
    if (bytes == 0) {
      throw InvalidArgument("safetensors: tensor '" + tensor.name + "'", tensor.dtype,
                            "a dtype of the format");
    }
    for (const std::int64_t size : tensor.shape) bytes *= size;
    // emplace_back, not operator[], which would search all earlier entries.
    entries.emplace_back(
        tensor.name,
        nlohmann::ordered_json{{"dtype", tensor.dtype},
                               {"shape", tensor.shape},
                               {"data_offsets", {layout.data_bytes, layout.data_bytes + bytes}}});
    layout.data_bytes += bytes;
  }
  try {
    layout.header = header.dump();
  } catch (const nlohmann::json::exception&) {
    throw InvalidArgument("safetensors", "a name or metadata that is no text", "UTF-8");
  }
  const std::size_t past_alignment = layout.header.size() % kDataAlignment;
  if (past_alignment != 0) layout.header.append(kDataAlignment - past_alignment, ' ');
  if (std::cmp_greater(layout.header.size(), kMaxSafetensorsHeaderBytes)) {
    throw Unsupported("safetensors",
                      "a header of " + std::to_string(layout.header.size()) + " bytes for " +
                          std::to_string(tensors.size()) + " tensors",
                      "at most " + std::to_string(kMaxSafetensorsHeaderBytes) + " bytes");
  }
  return layout;
}

}  // namespace

SafetensorsWriter::SafetensorsWriter(const std::filesystem::path& path,
                                     const std::vector<TensorSpec>& tensors,
                                     const std::map<std::string, std::string>& metadata)
    : file_(path) {
  const Layout layout = lay_out(tensors, metadata);
  expected_bytes_ = layout.data_bytes;
  const std::uint64_t header_bytes = layout.header.size();
  file_.write(std::as_bytes(std::span(&header_bytes, 1)));
  file_.write(layout.header);
}

void SafetensorsWriter::write(std::span<const std::byte> bytes) {
  written_bytes_ += static_cast<std::int64_t>(bytes.size());
  if (written_bytes_ > expected_bytes_) {
    throw InvalidArgument("safetensors", "more data", std::to_string(expected_bytes_) + " bytes");
  }
  file_.write(bytes);
}

void SafetensorsWriter::commit() {
  if (written_bytes_ != expected_bytes_) {
    throw InvalidArgument("safetensors", std::to_string(written_bytes_) + " bytes written",
                          std::to_string(expected_bytes_));
  }
  file_.commit();
}

}  // namespace mla::proto
