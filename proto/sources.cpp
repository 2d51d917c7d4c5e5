#include "proto/sources.h"

#include <algorithm>
#include <cstdint>
#include <set>

#include <sys/stat.h>

#include "core/error.h"
#include "proto/batch_file.h"
#include "proto/hash.h"

namespace mla::proto {
namespace {

bool is_file(const TensorSource& source) {
  return source.kind == TensorSource::Kind::kSafetensors;
}

}  // namespace

const SafetensorsFile& SourceFiles::open(const std::string& file) {
  std::unique_ptr<SafetensorsFile>& opened = files_[file];
  if (opened == nullptr) opened = std::make_unique<SafetensorsFile>(base_dir_ / file);
  return *opened;
}

const std::uint16_t* SourceFiles::kv_cache(const Batch& batch) {
  const MlaShape& shape = batch.shape;
  std::vector<Shape> accepted{{batch.num_pages, batch.page_block_size, shape.h_kv, shape.d_qk}};
  if (shape.h_kv == 1) accepted.push_back({batch.num_pages, batch.page_block_size, shape.d_qk});
  return elements(batch.kv_cache, batch.dtype, accepted);
}

const std::uint16_t* SourceFiles::query(const Batch& batch, const Request& request) {
  return elements(request.q, batch.dtype, {{request.query_len, batch.shape.h_q, batch.shape.d_qk}});
}

void SourceFiles::check_cache(const Batch& batch) {
  if (is_file(batch.kv_cache)) kv_cache(batch);
}

void SourceFiles::check_query(const Batch& batch, const Request& request) {
  if (is_file(request.q)) query(batch, request);
}

const std::uint16_t* SourceFiles::elements(const TensorSource& source, DType dtype,
                                           const std::vector<Shape>& accepted_shapes) {
  const SafetensorsFile& file = open(source.file);
  const std::string field = "safetensors '" + file.path().string() + "'";
  const TensorInfo* const tensor = file.find(source.tensor);
  if (tensor == nullptr) {
    throw FormatError(field, "no tensor '" + source.tensor + "'", "one, as the batch names it");
  }
  const std::string tensor_field = field + ": tensor '" + source.tensor + "'";
  if (tensor->dtype != safetensors_name_of(dtype)) {
    throw FormatError(tensor_field, tensor->dtype,
                      std::string(safetensors_name_of(dtype)) + ", the batch's dtype");
  }
  if (std::find(accepted_shapes.begin(), accepted_shapes.end(), tensor->shape) ==
      accepted_shapes.end()) {
    throw FormatError(tensor_field, "shape " + shape_text(tensor->shape),
                      shape_text(accepted_shapes.front()));
  }
  const std::byte* const data = file.data(*tensor).data();
  if (reinterpret_cast<std::uintptr_t>(data) % alignof(std::uint16_t) != 0) {
    throw FormatError(tensor_field, "data at an odd byte of the file",
                      "an even one (pad the header with a space)");
  }
  return reinterpret_cast<const std::uint16_t*>(data);
}

std::uint64_t hash_of_input(const Batch& batch, const std::filesystem::path& base_dir) {
  std::set<std::string> names;
  if (is_file(batch.kv_cache)) names.insert(batch.kv_cache.file);
  for (const Request& request : batch.requests) {
    if (is_file(request.q)) names.insert(request.q.file);
  }
  Xxh3Stream hash;
  hash.update(encode_batch(batch));
  for (const std::string& name : names) {
    const SafetensorsFile file(base_dir / name);
    struct stat status {};
    if (::stat(file.path().c_str(), &status) != 0) {
      throw FormatError("file '" + file.path().string() + "'", "vanished", "a file");
    }
    const std::int64_t numbers[] = {status.st_size, status.st_mtim.tv_sec, status.st_mtim.tv_nsec};
    hash.update(std::as_bytes(std::span(numbers)));
    hash.update(std::as_bytes(std::span(file.header())));
  }
  return hash.digest();
}

}  // namespace mla::proto
