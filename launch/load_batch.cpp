#include <spdlog/spdlog.h>

#include "core/error.h"
#include "launch/decode_job.h"
#include "proto/batch_file.h"
#include "proto/shard_data.h"

namespace mla::launch {
namespace {

/// Keeps the job going without this request.
void empty_request(Request& request) {
  request.query_len = 1;
  request.context_len = 0;
  request.block_table.clear();
  request.q = {};
}

/// What is wrong with request `index` and its queries; empty if nothing is.
std::string error_of_request(const Batch& batch, std::int64_t index,
                             const std::filesystem::path& base_dir) {
  try {
    validate_request(batch, index, ValidateFor::kDecoding);
    proto::check_query_source(batch, index, base_dir);
    return {};
  } catch (const FormatError& error) {
    return error.what();
  }
}

void read_on_root(const std::filesystem::path& path, bool keep_going, LoadedBatch& loaded) {
  const std::filesystem::path base_dir = path.parent_path();
  loaded.batch = proto::read_batch(path);
  if (!keep_going) {
    validate(loaded.batch, ValidateFor::kDecoding);
    proto::check_sources(loaded.batch, base_dir);
    return;
  }
  validate_header(loaded.batch, ValidateFor::kDecoding);
  proto::check_cache_source(loaded.batch, base_dir);
  for (std::size_t i = 0; i < loaded.batch.requests.size(); ++i) {
    const auto index = static_cast<std::int64_t>(i);
    std::string error = error_of_request(loaded.batch, index, base_dir);
    if (error.empty()) continue;
    empty_request(loaded.batch.requests[i]);
    spdlog::warn("request '{}' cannot run: {}", loaded.batch.requests[i].custom_id, error);
    loaded.failed[index] = std::move(error);
  }
}

}  // namespace

LoadedBatch load_batch(const dist::Communicator& comm, const std::filesystem::path& path,
                       bool keep_going) {
  LoadedBatch loaded;
  std::vector<std::byte> bytes;
  comm.on_root([&] {
    read_on_root(path, keep_going, loaded);
    bytes = proto::encode_batch(loaded.batch);
  });
  comm.broadcast(bytes);
  if (comm.rank() != 0) loaded.batch = proto::decode_batch(bytes, path.string());
  return loaded;
}

}  // namespace mla::launch
