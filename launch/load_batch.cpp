#include <spdlog/spdlog.h>

#include "core/error.h"
#include "launch/decode_job.h"
#include "proto/batch_file.h"
#include "proto/sources.h"

namespace mla::launch {
namespace {

/// Keeps the job going without this request.
void empty_request(Request& request) {
  request.query_len = 1;
  request.context_len = 0;
  request.block_table.clear();
  request.q = {};
}

void read_on_root(const std::filesystem::path& path, bool keep_going, LoadedBatch& loaded) {
  Batch& batch = loaded.batch = proto::read_batch(path);
  proto::SourceFiles files(path.parent_path());
  validate_header(batch, ValidateFor::kDecoding);
  files.check_cache(batch);
  for (std::int64_t i = 0; i < std::ssize(batch.requests); ++i) {
    Request& request = batch.requests[i];
    try {
      validate_request(batch, i, ValidateFor::kDecoding);
      files.check_query(batch, request);
    } catch (const FormatError& error) {
      if (!keep_going) throw;
      spdlog::warn("request '{}' cannot run: {}", request.custom_id, error.what());
      loaded.failed[i] = error.what();
      empty_request(request);
    }
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
