#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/result.h"
#include "proto/file_io.h"

namespace mla::proto {

/// What a journal belongs to. A job may go on from it only if both are equal.
struct JournalHeader {
  std::uint64_t input_hash = 0;  ///< as of `hash_of_input`
  std::string settings;          ///< what else the results' bits depend on: "combine: exact, ..."

  friend bool operator==(const JournalHeader&, const JournalHeader&) = default;
};

/// Reads the finished results that a rank wrote to its journal, in order. Reading ends before a
/// record that is too short or whose checksum fails: what a killed writer left half written, or
/// what a machine that lost power had not made durable.
class JournalReader {
 public:
  /// A file that ends within its header holds nothing.
  /// @throws FormatError if the file cannot be opened or begins otherwise; IoError.
  explicit JournalReader(const std::filesystem::path& path);

  /// None if the file ends within its header.
  const std::optional<JournalHeader>& header() const { return header_; }

  /// The next result; none at the end. @throws FormatError for an intact record that contradicts
  /// itself; IoError.
  std::optional<ResultSlice> next();

  /// The result whose record begins at byte `offset`. @throws FormatError if there is none;
  /// IoError.
  ResultSlice read_at(std::int64_t offset) const;

  /// Bytes up to the end of the last record that `next` returned.
  std::int64_t valid_bytes() const { return valid_bytes_; }
  /// Bytes of the file when it was opened.
  std::int64_t file_bytes() const { return file_bytes_; }

 private:
  std::string field_at(std::int64_t offset) const;
  std::optional<std::vector<std::byte>> intact_payload(std::int64_t offset) const;

  std::filesystem::path path_;
  FileDescriptor file_;
  std::int64_t file_bytes_ = 0;
  std::optional<JournalHeader> header_;
  std::int64_t valid_bytes_ = 0;
};

/// Appends finished results to a rank's journal.
class JournalWriter {
 public:
  /// Makes the journal, which must not exist, and makes it durable. @throws IoError; then there is
  /// none.
  JournalWriter(const std::filesystem::path& path, const JournalHeader& header);

  /// Written, but durable only after `sync`. @throws IoError; then nothing was appended.
  void append(const ResultSlice& slice);

  /// Makes all that was appended durable. @throws IoError.
  void sync();

  /// Bytes appended since the last `sync`.
  std::int64_t unsynced_bytes() const { return end_ - synced_; }

 private:
  void append_bytes(std::span<const std::byte> bytes);

  std::filesystem::path path_;
  FileDescriptor file_;
  std::int64_t end_ = 0;     // of the last whole record
  std::int64_t synced_ = 0;  // durable bytes
};

}  // namespace mla::proto
