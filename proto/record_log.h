#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "proto/file_io.h"

namespace mla::proto {

/// What a journal belongs to. A job may go on from it only if both are equal.
struct JournalHeader {
  std::uint64_t input_hash = 0;  ///< of what the job reads
  std::string settings;          ///< what else the results' bits depend on: "combine: exact, ..."

  friend bool operator==(const JournalHeader&, const JournalHeader&) = default;
};

/// @throws FormatError naming the first thing in which the journal at `path`, whose header is
///         `found`, is not of the job of `expected`; `input` says what the job reads: "batch".
void check_same_job(const std::filesystem::path& path, const JournalHeader& found,
                    const JournalHeader& expected, const std::string& input);

/// "journal 'PATH'", as errors name it.
std::string journal_name(const std::filesystem::path& path);

/// Reads the records of a journal, in order. Reading ends before a record that is too short or
/// whose checksum fails: what a killed writer left half written, or what a machine that lost power
/// had not made durable.
class RecordReader {
 public:
  /// A file that ends within its header holds nothing.
  /// @throws FormatError if the file begins otherwise; IoError.
  explicit RecordReader(const std::filesystem::path& path);

  const std::filesystem::path& path() const { return path_; }
  /// None if the file ends within its header.
  const std::optional<JournalHeader>& header() const { return header_; }

  /// The next record; none at the end. @throws IoError.
  std::optional<std::vector<std::byte>> next();

  /// The record that begins at byte `offset`. @throws FormatError if there is none; IoError.
  std::vector<std::byte> read_at(std::int64_t offset) const;

  /// Bytes up to the end of the last record that `next` returned.
  std::int64_t valid_bytes() const { return valid_bytes_; }
  /// Bytes of the file when it was opened.
  std::int64_t file_bytes() const { return file_bytes_; }

  /// How errors name the record that begins at byte `offset`.
  std::string record_name(std::int64_t offset) const;
  /// What to say of a tail that is no whole record, after the last `next`; "" if there is none.
  std::string tail_warning() const;

 private:
  std::optional<std::vector<std::byte>> intact_record(std::int64_t offset) const;

  std::filesystem::path path_;
  FileDescriptor file_;
  std::int64_t file_bytes_ = 0;
  std::optional<JournalHeader> header_;
  std::int64_t valid_bytes_ = 0;
};

/// Appends records to a journal.
class RecordWriter {
 public:
  /// Makes the journal, which must not exist, and makes it durable. @throws IoError; then there is
  /// none.
  RecordWriter(const std::filesystem::path& path, const JournalHeader& header);

  /// Written, but durable only after a sync. @throws IoError; then nothing was appended.
  void append(std::span<const std::byte> record);

  /// Makes all that was appended durable. @throws IoError.
  void sync();

  /// The same once 5 s or 64 MiB have come together: what a crash of the machine may lose. A crash
  /// of the job loses nothing. @throws IoError.
  void sync_when_due();

  /// Bytes so far: where the next record begins.
  std::int64_t end() const { return end_; }
  /// Bytes appended since the last sync.
  std::int64_t unsynced_bytes() const { return end_ - synced_; }

 private:
  void append_bytes(std::span<const std::byte> bytes);

  std::filesystem::path path_;
  FileDescriptor file_;
  std::int64_t end_ = 0;     // of the last whole record
  std::int64_t synced_ = 0;  // durable bytes
  std::chrono::steady_clock::time_point synced_at_;
};

}  // namespace mla::proto
