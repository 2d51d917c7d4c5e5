#pragma once

#include <cstdint>
#include <deque>
#include <string>
#include <vector>

#include "core/batch.h"
#include "core/result.h"
#include "proto/journal_files.h"
#include "proto/record_log.h"

namespace mla::proto {

/// Where the finished results of a batch lie in a set of journals, whatever runs and numbers of
/// ranks wrote them, in any order. Holds at most a few files open.
class JournalIndex {
 public:
  /// Reads all of `files` once. The batch must outlive the index.
  /// @throws FormatError for a journal of another input or other settings, naming what differs;
  ///         IoError.
  JournalIndex(const Batch& batch, std::vector<JournalFile> files, const JournalHeader& header);

  /// True if there are results for all heads of `request`.
  bool is_finished(std::int64_t request) const { return !slices_of(request).empty(); }

  /// The result of a finished request, its heads side by side. @throws Error if it is not finished;
  /// FormatError if a journal has changed since; IoError.
  Result read(std::int64_t request);

  /// A line for each journal that has bytes at its end that are no whole record.
  const std::vector<std::string>& warnings() const { return warnings_; }

 private:
  /// A record. In `slices_` by request, then by first head, the widest first.
  struct Slice {
    std::int64_t request = 0;
    Range heads;
    std::int64_t file = 0;    // index into files_
    std::int64_t offset = 0;  // bytes
  };
  struct OpenFile {
    std::int64_t file = 0;
    RecordReader reader;
  };

  void add_file(std::int64_t file, const JournalHeader& header);
  void check_slice(const ResultSlice& slice, std::int64_t file) const;
  std::vector<Slice> slices_of(std::int64_t request) const;
  const RecordReader& open(std::int64_t file);

  const Batch& batch_;
  std::vector<JournalFile> files_;
  std::vector<Slice> slices_;
  std::vector<std::string> warnings_;
  std::deque<OpenFile> open_;  // the one opened first in front
};

}  // namespace mla::proto
