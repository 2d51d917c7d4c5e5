#include <algorithm>
#include <cstring>
#include <filesystem>
#include <optional>
#include <system_error>

#include "core/error.h"
#include "launch/decode_job.h"
#include "proto/batch_file.h"
#include "proto/journal.h"

namespace mla::launch {
namespace {

std::filesystem::path journal_path(const DecodeOptions& options, int rank) {
  std::filesystem::path path = options.output;
  path += ".rank-" + std::to_string(rank) + ".journal";
  return path;
}

/// Removes this rank's journal on every way out.
class JournalCleaner {
 public:
  explicit JournalCleaner(std::filesystem::path path) : path_(std::move(path)) { remove(); }
  ~JournalCleaner() { remove(); }
  JournalCleaner(const JournalCleaner&) = delete;
  JournalCleaner& operator=(const JournalCleaner&) = delete;

 private:
  void remove() {
    std::error_code ignored;
    std::filesystem::remove(path_, ignored);
  }
  std::filesystem::path path_;
};

/// A journal and its next slice. Slices of a journal are in the order of requests.
struct JournalCursor {
  proto::JournalReader reader;
  std::optional<ResultSlice> next;
};

/// Puts the head slices of one request side by side.
Result assemble(const Batch& batch, std::int64_t request, const std::vector<ResultSlice>& slices) {
  const Request& r = batch.requests[request];
  const std::int64_t h_q = batch.shape.h_q;
  const std::int64_t row_bytes = batch.shape.d_v * size_of(batch.out_dtype);
  Result result{.custom_id = r.custom_id,
                .query_len = r.query_len,
                .h_q = h_q,
                .d_v = batch.shape.d_v,
                .out_dtype = batch.out_dtype,
                .out = std::vector<std::byte>(r.query_len * h_q * row_bytes),
                .lse = std::vector<float>(r.query_len * h_q),
                .error = {}};
  std::int64_t heads = 0;
  for (const ResultSlice& slice : slices) {
    heads += slice.heads.size();
    for (std::int64_t token = 0; token < r.query_len; ++token) {
      const std::int64_t from = token * slice.heads.size();
      const std::int64_t to = token * h_q + slice.heads.begin;
      std::memcpy(result.out.data() + to * row_bytes, slice.out.data() + from * row_bytes,
                  slice.heads.size() * row_bytes);
      std::copy_n(slice.lse.data() + from, slice.heads.size(), result.lse.data() + to);
    }
  }
  if (heads != h_q) {
    throw FormatError("journals", std::to_string(heads) + " heads of request '" + r.custom_id + "'",
                      std::to_string(h_q));
  }
  return result;
}

void merge_journals(const LoadedBatch& loaded, const DecodeOptions& options, int ranks) {
  const proto::ResultFormat format =
      options.format.empty()       ? proto::result_format_of(options.output)
      : options.format == "stream" ? proto::ResultFormat::kStream
                                   : proto::ResultFormat::kSafetensors;
  std::vector<JournalCursor> cursors;
  for (int rank = 0; rank < ranks; ++rank) {
    proto::JournalReader reader(journal_path(options, rank));
    auto first = reader.next();
    cursors.push_back({std::move(reader), std::move(first)});
  }
  proto::ResultWriter writer(options.output, format, loaded.batch, loaded.failed);
  const auto num_requests = static_cast<std::int64_t>(loaded.batch.requests.size());
  for (std::int64_t request = 0; request < num_requests; ++request) {
    std::vector<ResultSlice> slices;
    for (JournalCursor& cursor : cursors) {
      while (cursor.next && cursor.next->request == request) {
        slices.push_back(std::move(*cursor.next));
        cursor.next = cursor.reader.next();
      }
    }
    if (!loaded.failed.contains(request)) writer.append(assemble(loaded.batch, request, slices));
  }
  writer.commit();
}

}  // namespace

void write_results(const dist::Communicator& comm, const LoadedBatch& loaded,
                   const DecodeOptions& options, const std::vector<ResultSlice>& slices) {
  const JournalCleaner cleaner(journal_path(options, comm.rank()));
  proto::JournalHeader header;
  comm.on_root(
      [&] { header.batch_hash = proto::hash_of_input(loaded.batch, options.batch.parent_path()); });
  header = comm.all_gather(header).front();
  comm.together([&] {
    proto::JournalWriter journal(journal_path(options, comm.rank()), header);
    for (const ResultSlice& slice : slices) journal.append(slice);
    journal.sync();
  });
  comm.on_root([&] { merge_journals(loaded, options, comm.size()); });
}

}  // namespace mla::launch
