#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>

#include "core/result.h"
#include "proto/file_io.h"

namespace mla::proto {

/// What a journal belongs to. A job may resume from it only if both are equal.
struct JournalHeader {
  std::uint64_t batch_hash = 0;     ///< as of `hash_of_input`
  std::uint64_t settings_hash = 0;  ///< of whatever else the results depend on

  friend bool operator==(const JournalHeader&, const JournalHeader&) = default;
};

/// Reads the finished results that a rank wrote to its journal, in order. What a killed writer left
/// half written at the end (too short, or its checksum fails) is not a record: reading ends there.
class JournalReader {
 public:
  /// @throws FormatError if the file cannot be read or has no intact header.
  explicit JournalReader(const std::filesystem::path& path);

  const JournalHeader& header() const { return header_; }

  /// The next result; none at the end.
  /// @throws FormatError for damage that intact records follow: that is no torn tail.
  std::optional<ResultSlice> next();

  /// Bytes up to the end of the last intact record returned; at the end of reading, where a writer
  /// may go on.
  std::int64_t valid_bytes() const { return valid_bytes_; }

 private:
  MappedFile file_;
  JournalHeader header_;
  std::int64_t valid_bytes_ = 0;
};

/// Appends finished results to a rank's journal.
class JournalWriter {
 public:
  /// Makes the journal, or goes on with an existing one after cutting off its torn tail.
  /// @throws FormatError if the existing journal has another header or is damaged; IoError.
  JournalWriter(const std::filesystem::path& path, const JournalHeader& header);

  /// Written, but durable only after `sync`. @throws IoError; then nothing was appended.
  void append(const ResultSlice& slice);

  /// Makes all that was appended durable. @throws IoError.
  void sync();

 private:
  std::filesystem::path path_;
  FileDescriptor file_;
  std::int64_t end_ = 0;  // of the last whole record
};

}  // namespace mla::proto
