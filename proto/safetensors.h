#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/dtype.h"
#include "core/range.h"
#include "proto/file_io.h"

namespace mla::proto {

/// Longer headers are neither read nor written, as in the format's own library.
inline constexpr std::int64_t kMaxSafetensorsHeaderBytes = 100'000'000;

/// One tensor of a safetensors file, as its header describes it.
struct TensorInfo {
  std::string name;
  std::string dtype;  ///< "BF16", "F32" and so on
  std::vector<std::int64_t> shape;
  Range bytes;  ///< within the data part of the file

  friend bool operator==(const TensorInfo&, const TensorInfo&) = default;
};

/// Bytes of an element of a safetensors dtype; 0 for an unknown one.
std::int64_t safetensors_size_of(std::string_view dtype);

/// What the format calls a dtype: "BF16", "F16" or "F32".
std::string_view safetensors_name_of(DType dtype);

/// "[2, 16, 576]".
std::string shape_text(const std::vector<std::int64_t>& shape);

/// A safetensors file mapped into memory: nothing is read but the header until data is touched.
/// The format is that of https://github.com/huggingface/safetensors; every rule of it is checked.
class SafetensorsFile {
 public:
  /// @throws FormatError naming the file, the tensor and the rule that is broken, also when the
  ///         file is missing.
  explicit SafetensorsFile(const std::filesystem::path& path);

  /// The tensor called `name`, or null.
  const TensorInfo* find(std::string_view name) const;

  /// All tensors in the order of their bytes.
  const std::vector<TensorInfo>& tensors() const { return tensors_; }

  /// The bytes of a tensor of this file.
  std::span<const std::byte> data(const TensorInfo& tensor) const;

  /// Copies a part of a tensor's bytes without making mapped pages resident. Thread-safe.
  /// @throws IoError.
  void read(std::span<const std::byte> part, std::byte* to) const { file_.read(part, to); }

  /// The header's __metadata__.
  const std::map<std::string, std::string, std::less<>>& metadata() const { return metadata_; }

  /// The JSON text of the header.
  std::string_view header() const;

  const std::filesystem::path& path() const { return file_.path(); }

 private:
  void read_header();

  MappedFile file_;
  std::vector<TensorInfo> tensors_;
  std::map<std::string, std::size_t, std::less<>> index_;
  std::map<std::string, std::string, std::less<>> metadata_;
  std::int64_t data_begin_ = 0;
};

/// What a tensor to be written is called and how large it is.
struct TensorSpec {
  std::string name;
  std::string dtype;
  std::vector<std::int64_t> shape;
};

/// Writes a safetensors file as a stream: the header when it is made, then the tensors' bytes in
/// order. Nothing is seen at the path before `commit`.
class SafetensorsWriter {
 public:
  /// @throws InvalidArgument for an unknown dtype or a name given twice; IoError.
  SafetensorsWriter(const std::filesystem::path& path, const std::vector<TensorSpec>& tensors,
                    const std::map<std::string, std::string>& metadata = {});

  /// Appends bytes; tensors may be written in any number of parts. @throws IoError.
  void write(std::span<const std::byte> bytes);

  /// Makes the file appear. @throws InvalidArgument unless all bytes were written; IoError.
  void commit();

 private:
  AtomicFile file_;
  std::int64_t expected_bytes_ = 0;
  std::int64_t written_bytes_ = 0;
};

}  // namespace mla::proto
