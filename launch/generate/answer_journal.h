#pragma once

#include <cstdint>
#include <filesystem>
#include <iterator>
#include <map>
#include <optional>
#include <string_view>
#include <vector>

#include "proto/journal_files.h"
#include "proto/record_log.h"

namespace mla::launch {

/// The answers that are finished, kept in journals beside the output, one per run, until the output
/// is written: those of earlier runs, if this one goes on from them, and this one's. In memory is
/// only where they lie. On rank 0.
class AnswerJournal {
 public:
  /// Finds what earlier runs have answered. `header` is what the answers depend on.
  /// @throws InvalidArgument for journals and neither `resume` nor `restart`; FormatError for those
  ///         of another job; IoError.
  AnswerJournal(std::filesystem::path output, proto::JournalHeader header, bool resume,
                bool restart);

  bool contains(std::int64_t request) const { return places_.contains(request); }
  std::int64_t size() const { return std::ssize(places_); }
  /// How many of them say that their request failed.
  std::int64_t num_failed() const;

  /// Appends an answer, and makes all durable now and then. @throws IoError.
  void keep(std::int64_t request, std::string_view line, bool failed);

  /// Makes all answers durable. @throws IoError.
  void sync();

  /// Writes the answers in the order of their requests, then removes the journals.
  /// @throws FormatError if a journal has changed since; IoError.
  void write_output();

 private:
  struct Place {
    std::size_t file = 0;     // index into files_
    std::int64_t offset = 0;  // bytes
    bool failed = false;
  };

  void read(std::size_t file);

  std::filesystem::path output_;
  proto::JournalHeader header_;
  std::vector<proto::JournalFile> files_;
  std::map<std::int64_t, Place> places_;       // by request
  std::optional<proto::RecordWriter> writer_;  // of the last file; made for the first answer
};

}  // namespace mla::launch
