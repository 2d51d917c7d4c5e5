#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>

#include "core/result.h"
#include "proto/record_log.h"

namespace mla::proto {

/// Reads the finished results that a rank wrote to its journal, in order, as `RecordReader` reads
/// records.
class JournalReader {
 public:
  /// @throws as RecordReader.
  explicit JournalReader(const std::filesystem::path& path) : records_(path) {}

  /// The file below: its header, and how far it was read.
  const RecordReader& records() const { return records_; }

  /// The next result; none at the end. @throws FormatError for an intact record that contradicts
  /// itself; IoError.
  std::optional<ResultSlice> next();

  /// The result whose record begins at byte `offset`. @throws FormatError if there is none;
  /// IoError.
  ResultSlice read_at(std::int64_t offset) const;

 private:
  RecordReader records_;
};

/// Appends finished results to a rank's journal.
class JournalWriter : private RecordWriter {
 public:
  using RecordWriter::RecordWriter;
  using RecordWriter::sync;
  using RecordWriter::sync_when_due;
  using RecordWriter::unsynced_bytes;

  /// Written, but durable only after a sync. @throws IoError; then nothing was appended.
  void append(const ResultSlice& slice);
};

}  // namespace mla::proto
