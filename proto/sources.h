#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "core/batch.h"
#include "proto/safetensors.h"

namespace mla::proto {

/// The safetensors files that a batch names, opened once each.
class SourceFiles {
 public:
  explicit SourceFiles(std::filesystem::path base_dir) : base_dir_(std::move(base_dir)) {}

  /// The elements of the cache, or of a request's queries, whose source must be kSafetensors.
  /// @throws FormatError naming file, tensor, found and expected.
  const std::uint16_t* kv_cache(const Batch& batch);
  const std::uint16_t* query(const Batch& batch, const Request& request);

  /// If they have such a source, checks the same without touching the data: meant for rank 0 before
  /// any work.
  void check_cache(const Batch& batch);
  void check_query(const Batch& batch, const Request& request);

  /// @throws FormatError if the file is missing or malformed.
  const SafetensorsFile& open(const std::string& file);

 private:
  using Shape = std::vector<std::int64_t>;

  const std::uint16_t* elements(const TensorSource& source, DType dtype,
                                const std::vector<Shape>& accepted_shapes);

  std::filesystem::path base_dir_;
  std::map<std::string, std::unique_ptr<SafetensorsFile>> files_;
};

}  // namespace mla::proto
