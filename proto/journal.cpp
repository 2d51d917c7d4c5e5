#include "proto/journal.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <string_view>

#include <fcntl.h>
#include <sys/stat.h>

#include "core/error.h"
#include "proto/file_calls.h"
#include "proto/hash.h"

// A journal file, all numbers little-endian and of 8 bytes:
//   header   "MESHMLAJ"; version; input hash; bytes of the settings; XXH3-64 of the header but for
//            this field; the settings
//   records  length of the payload; XXH3-64 of the payload; the payload:
//            request; heads begin; heads end; bytes of out; floats of lse; out; lse
namespace mla::proto {
namespace {

constexpr std::string_view kJournalMagic = "MESHMLAJ";
constexpr std::uint64_t kJournalVersion = 2;
constexpr std::int64_t kJournalHeaderBytes = 5 * 8;  // without the settings
constexpr std::int64_t kMaxSettingsBytes = 4096;
constexpr std::int64_t kRecordHeadBytes = 2 * 8;
constexpr std::int64_t kPayloadHeadBytes = 5 * 8;

using Bytes = std::span<const std::byte>;

template <class Element>
void append(std::vector<std::byte>& bytes, std::span<const Element> elements) {
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
  append(bytes, std::span<const char>(kJournalMagic));
  const std::array<std::uint64_t, 3> numbers{kJournalVersion, header.input_hash,
                                             header.settings.size()};
  append(bytes, std::span<const std::uint64_t>(numbers));
  const std::uint64_t checksum = hash_of_header(bytes, std::as_bytes(std::span(header.settings)));
  append(bytes, std::span<const std::uint64_t>(&checksum, 1));
  append(bytes, std::span<const char>(header.settings));
  return bytes;
}

std::vector<std::byte> encode_record(const ResultSlice& slice) {
  std::vector<std::byte> bytes(kRecordHeadBytes);
  const std::array numbers{
      static_cast<std::uint64_t>(slice.request), static_cast<std::uint64_t>(slice.heads.begin),
      static_cast<std::uint64_t>(slice.heads.end), static_cast<std::uint64_t>(slice.out.size()),
      static_cast<std::uint64_t>(slice.lse.size())};
  append(bytes, std::span<const std::uint64_t>(numbers));
  append(bytes, std::span<const std::byte>(slice.out));
  append(bytes, std::span<const float>(slice.lse));
  const Bytes payload = Bytes(bytes).subspan(kRecordHeadBytes);
  const std::array<std::uint64_t, 2> head{payload.size(), xxh3(payload)};
  std::memcpy(bytes.data(), head.data(), sizeof head);
  return bytes;
}

ResultSlice decode_payload(Bytes payload, const std::string& field) {
  std::array<std::uint64_t, 5> numbers{};
  std::memcpy(numbers.data(), payload.data(), sizeof numbers);
  const auto [request, begin, end, out_bytes, lse_floats] = numbers;
  const std::uint64_t rest = payload.size() - kPayloadHeadBytes;
  if (out_bytes > rest || (rest - out_bytes) % 4 != 0 || lse_floats != (rest - out_bytes) / 4) {
    throw FormatError(field, "sizes that contradict each other", "those of out and lse");
  }
  ResultSlice slice{.request = static_cast<std::int64_t>(request),
                    .heads = {static_cast<std::int64_t>(begin), static_cast<std::int64_t>(end)},
                    .out = {},
                    .lse = std::vector<float>(lse_floats)};
  const Bytes out = payload.subspan(kPayloadHeadBytes, out_bytes);
  slice.out.assign(out.begin(), out.end());
  const Bytes lse = payload.subspan(kPayloadHeadBytes + out_bytes);
  if (!lse.empty()) std::memcpy(slice.lse.data(), lse.data(), lse.size());
  return slice;
}

std::string name_of(const std::filesystem::path& path) {
  return "journal '" + path.string() + "'";
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

}  // namespace

JournalReader::JournalReader(const std::filesystem::path& path)
    : path_(path), file_(file_calls().open(path.c_str(), O_RDONLY | O_CLOEXEC, 0)) {
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
    throw FormatError(name_of(path) + ": version", std::to_string(raw.version),
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
  throw FormatError(name_of(path), "no intact header", "one that begins with MESHMLAJ");
}

std::string JournalReader::field_at(std::int64_t offset) const {
  return name_of(path_) + ": record at byte " + std::to_string(offset);
}

std::optional<std::vector<std::byte>> JournalReader::intact_payload(std::int64_t offset) const {
  const std::int64_t rest = file_bytes_ - offset - kRecordHeadBytes;
  if (rest < kPayloadHeadBytes) return std::nullopt;
  std::array<std::uint64_t, 2> head{};
  read_all(file_.get(), offset, std::as_writable_bytes(std::span(head)), path_);
  const auto [length, checksum] = head;
  if (length < kPayloadHeadBytes || length > static_cast<std::uint64_t>(rest)) return std::nullopt;
  std::vector<std::byte> payload(length);
  read_all(file_.get(), offset + kRecordHeadBytes, payload, path_);
  if (xxh3(payload) != checksum) return std::nullopt;
  return payload;
}

std::optional<ResultSlice> JournalReader::next() {
  if (!header_) return std::nullopt;
  const auto payload = intact_payload(valid_bytes_);
  if (!payload) return std::nullopt;
  ResultSlice slice = decode_payload(*payload, field_at(valid_bytes_));
  valid_bytes_ += kRecordHeadBytes + static_cast<std::int64_t>(payload->size());
  return slice;
}

ResultSlice JournalReader::read_at(std::int64_t offset) const {
  const auto payload = intact_payload(offset);
  if (!payload) throw FormatError(field_at(offset), "damaged", "what its checksum was taken of");
  return decode_payload(*payload, field_at(offset));
}

JournalWriter::JournalWriter(const std::filesystem::path& path, const JournalHeader& header)
    : path_(path),
      file_(file_calls().open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_APPEND | O_CLOEXEC,
                              0666)) {
  if (file_.get() < 0) throw IoError("create", path.string(), errno);
  try {
    append_bytes(encode_header(header));
    sync();
    sync_folder_of(path);
  } catch (const IoError&) {
    file_calls().unlink(path.c_str());
    throw;
  }
}

void JournalWriter::append(const ResultSlice& slice) {
  append_bytes(encode_record(slice));
}

void JournalWriter::append_bytes(Bytes bytes) {
  try {
    write_all(file_.get(), bytes, path_);
  } catch (const IoError&) {
    // A later record must not follow half of this one. If this fails too, readers will tell.
    [[maybe_unused]] const int ignored = file_calls().ftruncate(file_.get(), end_);
    throw;
  }
  end_ += static_cast<std::int64_t>(bytes.size());
}

void JournalWriter::sync() {
  if (file_calls().fdatasync(file_.get()) != 0) throw IoError("sync", path_.string(), errno);
  synced_ = end_;
}

}  // namespace mla::proto
