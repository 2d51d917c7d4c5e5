#include "proto/record_log.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <sstream>
#include <string_view>
#include <utility>

#include <fcntl.h>
#include <sys/stat.h>

#include "core/error.h"
#include "proto/file_calls.h"
#include "proto/hash.h"

// A journal file, all numbers little-endian and of 8 bytes:
//   header   "MESHMLAJ"; version; input hash; bytes of the settings; XXH3-64 of the header but for
//            this field; the settings
//   records  length of the record; XXH3-64 of the record; the record
namespace mla::proto {
namespace {

constexpr std::string_view kJournalMagic = "MESHMLAJ";
constexpr std::uint64_t kJournalVersion = 2;
constexpr std::int64_t kJournalHeaderBytes = 5 * 8;  // without the settings
constexpr std::int64_t kMaxSettingsBytes = 4096;
constexpr std::int64_t kRecordHeadBytes = 2 * 8;
constexpr std::chrono::seconds kSyncInterval{5};
constexpr std::int64_t kSyncBytes = 64 << 20;

using Bytes = std::span<const std::byte>;

template <class Element>
void put(std::vector<std::byte>& bytes, std::span<const Element> elements) {
  const Bytes added = std::as_bytes(elements);
  bytes.insert(bytes.end(), added.begin(), added.end());
}

std::uint64_t hash_of_header(Bytes before_checksum, Bytes settings) {
  Xxh3Stream hash;
  hash.update(before_checksum);
  hash.update(settings);
  return hash.digest();
}

std::vector<std::byte> encode_header(const JournalHeader& header) {
  std::vector<std::byte> bytes;
  put(bytes, std::span<const char>(kJournalMagic));
  const std::array<std::uint64_t, 3> numbers{kJournalVersion, header.input_hash,
                                             header.settings.size()};
  put(bytes, std::span<const std::uint64_t>(numbers));
  const std::uint64_t checksum = hash_of_header(bytes, std::as_bytes(std::span(header.settings)));
  put(bytes, std::span<const std::uint64_t>(&checksum, 1));
  put(bytes, std::span<const char>(header.settings));
  return bytes;
}

/// The first bytes of a header, in the file's order.
struct RawHeader {
  std::array<char, 8> magic{};
  std::uint64_t version = 0;
  std::uint64_t input_hash = 0;
  std::uint64_t settings_bytes = 0;
  std::uint64_t checksum = 0;
};
static_assert(sizeof(RawHeader) == kJournalHeaderBytes);

/// The parts of "a: 1, b: 2".
std::vector<std::string> parts_of(const std::string& settings) {
  std::vector<std::string> parts;
  std::istringstream stream(settings);
  for (std::string part; std::getline(stream >> std::ws, part, ',');) parts.push_back(part);
  return parts;
}

}  // namespace

std::string journal_name(const std::filesystem::path& path) {
  return "journal '" + path.string() + "'";
}

void check_same_job(const std::filesystem::path& path, const JournalHeader& found,
                    const JournalHeader& expected, const std::string& input) {
  const std::vector<std::string> theirs = parts_of(found.settings);
  const std::vector<std::string> ours = parts_of(expected.settings);
  for (std::size_t i = 0; i < std::min(theirs.size(), ours.size()); ++i) {
    if (theirs[i] != ours[i]) {
      throw FormatError(journal_name(path), "of a job with " + theirs[i], ours[i]);
    }
  }
  if (found.settings != expected.settings) {
    throw FormatError(journal_name(path), "of a job with " + found.settings, expected.settings);
  }
  if (found.input_hash != expected.input_hash) {
    throw FormatError(journal_name(path),
                      "of another " + input + ", or of files that have changed since",
                      "this " + input);
  }
}

RecordReader::RecordReader(const std::filesystem::path& path)
    : path_(path), file_(file_calls::open(path.c_str(), O_RDONLY | O_CLOEXEC)) {
  struct stat status {};
  if (file_.get() < 0 || ::fstat(file_.get(), &status) != 0) {
    throw IoError("open", path.string(), errno);
  }
  file_bytes_ = status.st_size;
  if (file_bytes_ < kJournalHeaderBytes) return;

  RawHeader raw;
  read_all(file_.get(), 0, std::as_writable_bytes(std::span(&raw, 1)), path_);
  const bool is_journal = std::string_view(raw.magic.data(), raw.magic.size()) == kJournalMagic;
  if (is_journal && raw.version != kJournalVersion) {
    throw FormatError(journal_name(path) + ": version", std::to_string(raw.version),
                      std::to_string(kJournalVersion));
  }
  if (is_journal && raw.settings_bytes <= kMaxSettingsBytes) {
    std::string settings(raw.settings_bytes, '\0');
    const auto size = kJournalHeaderBytes + static_cast<std::int64_t>(settings.size());
    if (file_bytes_ < size) return;
    read_all(file_.get(), kJournalHeaderBytes, std::as_writable_bytes(std::span(settings)), path_);
    const Bytes before_checksum = std::as_bytes(std::span(&raw, 1)).first(kJournalHeaderBytes - 8);
    if (raw.checksum == hash_of_header(before_checksum, std::as_bytes(std::span(settings)))) {
      header_ = {.input_hash = raw.input_hash, .settings = std::move(settings)};
      valid_bytes_ = size;
      return;
    }
  }
  throw FormatError(journal_name(path), "no intact header", "one that begins with MESHMLAJ");
}

std::string RecordReader::record_name(std::int64_t offset) const {
  return journal_name(path_) + ": record at byte " + std::to_string(offset);
}

std::string RecordReader::tail_warning() const {
  if (valid_bytes_ == file_bytes_) return {};
  return journal_name(path_) + ": its last " + std::to_string(file_bytes_ - valid_bytes_) +
         " bytes are no whole record and are not used";
}

std::optional<std::vector<std::byte>> RecordReader::intact_record(std::int64_t offset) const {
  const std::int64_t rest = file_bytes_ - offset - kRecordHeadBytes;
  if (rest < 0) return std::nullopt;
  std::array<std::uint64_t, 2> head{};
  read_all(file_.get(), offset, std::as_writable_bytes(std::span(head)), path_);
  const auto [length, checksum] = head;
  if (length > static_cast<std::uint64_t>(rest)) return std::nullopt;
  std::vector<std::byte> record(length);
  read_all(file_.get(), offset + kRecordHeadBytes, record, path_);
  if (xxh3(record) != checksum) return std::nullopt;
  return record;
}

std::optional<std::vector<std::byte>> RecordReader::next() {
  if (!header_) return std::nullopt;
  auto record = intact_record(valid_bytes_);
  if (record) valid_bytes_ += kRecordHeadBytes + static_cast<std::int64_t>(record->size());
  return record;
}

std::vector<std::byte> RecordReader::read_at(std::int64_t offset) const {
  auto record = intact_record(offset);
  if (!record) throw FormatError(record_name(offset), "damaged", "what its checksum was taken of");
  return std::move(*record);
}

RecordWriter::RecordWriter(const std::filesystem::path& path, const JournalHeader& header)
    : path_(path),
      file_(file_calls::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_APPEND | O_CLOEXEC,
                             0666)) {
  if (file_.get() < 0) throw IoError("create", path.string(), errno);
  try {
    append_bytes(encode_header(header));
    sync();
    sync_folder_of(path);
  } catch (const IoError&) {
    file_calls::unlink(path.c_str());
    throw;
  }
}

void RecordWriter::append(Bytes record) {
  const std::array<std::uint64_t, 2> head{record.size(), xxh3(record)};
  std::vector<std::byte> bytes;
  bytes.reserve(sizeof head + record.size());
  put(bytes, std::span<const std::uint64_t>(head));
  put(bytes, record);
  append_bytes(bytes);
}

void RecordWriter::append_bytes(Bytes bytes) {
  try {
    write_all(file_.get(), bytes, path_);
  } catch (const IoError&) {
    // A later record must not follow half of this one. If this fails too, readers will tell.
    [[maybe_unused]] const int ignored = file_calls::ftruncate(file_.get(), end_);
    throw;
  }
  end_ += static_cast<std::int64_t>(bytes.size());
}

void RecordWriter::sync() {
  if (file_calls::fdatasync(file_.get()) != 0) throw IoError("sync", path_.string(), errno);
  synced_ = end_;
  synced_at_ = std::chrono::steady_clock::now();
}

void RecordWriter::sync_when_due() {
  const auto waited = std::chrono::steady_clock::now() - synced_at_;
  if (waited >= kSyncInterval || unsynced_bytes() >= kSyncBytes) sync();
}

}  // namespace mla::proto
