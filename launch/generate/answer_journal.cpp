#include "launch/generate/answer_journal.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <span>
#include <string>
#include <utility>

#include <spdlog/spdlog.h>

#include "core/error.h"
#include "dist/activity.h"
#include "launch/earlier_journals.h"
#include "proto/file_io.h"

// A record: request; 1 if it failed, else 0 (8 bytes each); the line of the output.
namespace mla::launch {
namespace {

constexpr std::size_t kRecordHeadBytes = 2 * 8;

struct Answer {
  std::int64_t request = 0;
  bool failed = false;
  std::span<const std::byte> line;  // of the record
};

std::vector<std::byte> encode(std::int64_t request, std::string_view line, bool failed) {
  const std::array<std::int64_t, 2> head{request, failed ? 1 : 0};
  std::vector<std::byte> record(kRecordHeadBytes + line.size());
  std::memcpy(record.data(), head.data(), kRecordHeadBytes);
  std::memcpy(record.data() + kRecordHeadBytes, line.data(), line.size());
  return record;
}

/// @throws FormatError for a record that is none of an answer.
Answer decode(std::span<const std::byte> record, const std::string& name) {
  std::array<std::int64_t, 2> head{-1, -1};
  if (record.size() >= kRecordHeadBytes) std::memcpy(head.data(), record.data(), kRecordHeadBytes);
  if (head[0] < 0 || head[1] < 0 || head[1] > 1) {
    throw FormatError(name, "something else", "the answer to a request");
  }
  return {.request = head[0], .failed = head[1] == 1, .line = record.subspan(kRecordHeadBytes)};
}

}  // namespace

AnswerJournal::AnswerJournal(std::filesystem::path output, proto::JournalHeader header, bool resume,
                             bool restart)
    : output_(std::move(output)),
      header_(std::move(header)),
      files_(earlier_journals(output_, resume, restart)) {
  for (std::size_t file = 0; file < files_.size(); ++file) read(file);
}

void AnswerJournal::read(std::size_t file) {
  proto::RecordReader reader(files_[file].path);
  if (reader.header()) {
    check_same_job(reader.path(), *reader.header(), header_, "file of requests or model");
  }
  std::int64_t offset = reader.valid_bytes();
  while (const auto record = reader.next()) {
    const Answer answer = decode(*record, reader.record_name(offset));
    places_[answer.request] = {file, offset, answer.failed};
    offset = reader.valid_bytes();
    ++dist::activity().calls;  // so that many answers are not taken for a job that hangs
  }
  if (const std::string warning = reader.tail_warning(); !warning.empty()) {
    spdlog::warn("{}", warning);
  }
}

std::int64_t AnswerJournal::num_failed() const {
  return std::count_if(places_.begin(), places_.end(),
                       [](const auto& place) { return place.second.failed; });
}

void AnswerJournal::keep(std::int64_t request, std::string_view line, bool failed) {
  if (!writer_) {
    files_.push_back(proto::journal_of(output_, proto::next_run(files_), 0));
    writer_.emplace(files_.back().path, header_);
  }
  const std::int64_t offset = writer_->end();
  writer_->append(encode(request, line, failed));
  places_[request] = {files_.size() - 1, offset, failed};
  writer_->sync_when_due();
}

void AnswerJournal::sync() {
  if (writer_) writer_->sync();
}

void AnswerJournal::write_output() {
  proto::AtomicFile output(output_);
  std::optional<proto::RecordReader> reader;  // one file at a time: there may be many
  for (const auto& [request, place] : places_) {
    const std::filesystem::path& path = files_[place.file].path;
    if (!reader || reader->path() != path) reader.emplace(path);
    const auto record = reader->read_at(place.offset);
    output.write(decode(record, reader->record_name(place.offset)).line);
    ++dist::activity().calls;
  }
  output.commit();
  writer_.reset();
  proto::remove_journals(files_, output_);
}

}  // namespace mla::launch
