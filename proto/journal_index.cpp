#include "proto/journal_index.h"

#include <algorithm>
#include <cstring>
#include <tuple>

#include "core/error.h"
#include "proto/journal.h"
#include "proto/result_sinks.h"

namespace mla::proto {
namespace {

constexpr std::size_t kMaxOpenFiles = 64;

/// Copies the heads of `slice` to their places among all heads.
void place(const ResultSlice& slice, std::int64_t row_bytes, Result& result) {
  for (std::int64_t token = 0; token < result.query_len; ++token) {
    const std::int64_t from = token * slice.heads.size();
    const std::int64_t to = token * result.h_q + slice.heads.begin;
    std::memcpy(result.out.data() + to * row_bytes, slice.out.data() + from * row_bytes,
                static_cast<std::size_t>(slice.heads.size() * row_bytes));
    std::copy_n(slice.lse.data() + from, slice.heads.size(), result.lse.data() + to);
  }
}

}  // namespace

JournalIndex::JournalIndex(const Batch& batch, std::vector<JournalFile> files,
                           const JournalHeader& header)
    : batch_(batch), files_(std::move(files)) {
  for (std::size_t i = 0; i < files_.size(); ++i) add_file(static_cast<std::int64_t>(i), header);
  std::sort(slices_.begin(), slices_.end(), [](const Slice& a, const Slice& b) {
    return std::tuple(a.request, a.heads.begin, -a.heads.end, a.file, a.offset) <
           std::tuple(b.request, b.heads.begin, -b.heads.end, b.file, b.offset);
  });
}

void JournalIndex::add_file(std::int64_t file, const JournalHeader& header) {
  RecordReader reader(files_[file].path);
  if (reader.header()) check_same_job(reader.path(), *reader.header(), header, "batch");
  std::int64_t offset = reader.valid_bytes();
  while (const auto record = reader.next()) {
    const ResultSlice slice = decode_slice(*record, reader.record_name(offset));
    check_slice(slice, file);
    slices_.push_back({slice.request, slice.heads, file, offset});
    offset = reader.valid_bytes();
  }
  if (const std::string warning = reader.tail_warning(); !warning.empty()) {
    warnings_.push_back(warning);
  }
}

void JournalIndex::check_slice(const ResultSlice& slice, std::int64_t file) const {
  const auto num_requests = static_cast<std::int64_t>(batch_.requests.size());
  const bool is_place = slice.request >= 0 && slice.request < num_requests &&
                        slice.heads.begin >= 0 && !slice.heads.empty() &&
                        slice.heads.end <= batch_.shape.h_q;
  if (is_place) {
    const std::int64_t rows = batch_.requests[slice.request].query_len * slice.heads.size();
    const std::int64_t out_bytes = rows * batch_.shape.d_v * size_of(batch_.out_dtype);
    if (static_cast<std::int64_t>(slice.lse.size()) == rows &&
        static_cast<std::int64_t>(slice.out.size()) == out_bytes) {
      return;
    }
  }
  throw FormatError(journal_name(files_[file].path),
                    "a record of request " + std::to_string(slice.request) + ", heads " +
                        std::to_string(slice.heads.begin) + " to " +
                        std::to_string(slice.heads.end),
                    "requests, heads and sizes of the batch");
}

/// Slices that cover all heads of `request`, left to right; none if there are not enough.
std::vector<JournalIndex::Slice> JournalIndex::slices_of(std::int64_t request) const {
  std::vector<Slice> chosen;
  std::int64_t covered = 0;
  auto slice = std::lower_bound(slices_.begin(), slices_.end(), request,
                                [](const Slice& s, std::int64_t r) { return s.request < r; });
  for (; slice != slices_.end() && slice->request == request; ++slice) {
    if (slice->heads.begin > covered) return {};
    if (slice->heads.end <= covered) continue;
    chosen.push_back(*slice);
    covered = slice->heads.end;
  }
  if (covered < batch_.shape.h_q) return {};
  return chosen;
}

Result JournalIndex::read(std::int64_t request) {
  const Request& r = batch_.requests[request];
  const std::vector<Slice> slices = slices_of(request);
  if (slices.empty()) {
    throw Error(ExitCode::kIo, "journals: not all heads of request '" + r.custom_id +
                                   "'; expected what this run has written");
  }
  Result result{.custom_id = r.custom_id,
                .query_len = r.query_len,
                .h_q = batch_.shape.h_q,
                .d_v = batch_.shape.d_v,
                .out_dtype = batch_.out_dtype,
                .out = std::vector<std::byte>(out_bytes_of(batch_, r)),
                .lse = std::vector<float>(lse_count_of(batch_, r)),
                .error = {}};
  const std::int64_t row_bytes = batch_.shape.d_v * size_of(batch_.out_dtype);
  for (const Slice& slice : slices) {
    const RecordReader& reader = open(slice.file);
    const auto record = reader.read_at(slice.offset);
    place(decode_slice(record, reader.record_name(slice.offset)), row_bytes, result);
  }
  return result;
}

const RecordReader& JournalIndex::open(std::int64_t file) {
  const auto found = std::find_if(open_.begin(), open_.end(),
                                  [&](const OpenFile& open) { return open.file == file; });
  if (found != open_.end()) return found->reader;
  if (open_.size() == kMaxOpenFiles) open_.pop_front();
  open_.push_back({file, RecordReader(files_[file].path)});
  return open_.back().reader;
}

}  // namespace mla::proto
