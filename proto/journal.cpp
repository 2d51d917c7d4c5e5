#include "proto/journal.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <string_view>
#include <vector>

#include <fcntl.h>
#include <unistd.h>

#include "core/error.h"
#include "proto/hash.h"

// A journal file, all numbers little-endian and of 8 bytes:
//   header   "MESHMLAJ"; version; batch hash; settings hash; XXH3-64 of the header so far
//   records  length of the payload; XXH3-64 of the payload; the payload:
//            request; heads begin; heads end; bytes of out; floats of lse; out; lse
namespace mla::proto {
namespace {

constexpr std::string_view kMagic = "MESHMLAJ";
constexpr std::uint64_t kVersion = 1;
constexpr std::size_t kHeaderBytes = 5 * 8;
constexpr std::size_t kRecordHeadBytes = 2 * 8;
constexpr std::size_t kPayloadHeadBytes = 5 * 8;

using Bytes = std::span<const std::byte>;

template <std::size_t N>
std::array<std::uint64_t, N> load(Bytes bytes) {
  std::array<std::uint64_t, N> numbers;
  std::memcpy(numbers.data(), bytes.data(), sizeof numbers);
  return numbers;
}

template <class Element>
void append(std::vector<std::byte>& bytes, std::span<const Element> elements) {
  const Bytes added = std::as_bytes(elements);
  bytes.insert(bytes.end(), added.begin(), added.end());
}

std::vector<std::byte> encode_header(const JournalHeader& header) {
  std::vector<std::byte> bytes;
  append(bytes, std::span(kMagic));
  const std::array numbers{kVersion, header.batch_hash, header.settings_hash};
  append(bytes, std::span<const std::uint64_t>(numbers));
  const std::uint64_t checksum = xxh3(bytes);
  append(bytes, std::span(&checksum, 1));
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

/// The payload of an intact record at the start of `bytes`.
std::optional<Bytes> intact_payload(Bytes bytes) {
  if (bytes.size() < kRecordHeadBytes) return std::nullopt;
  const auto [length, checksum] = load<2>(bytes);
  const std::uint64_t rest = bytes.size() - kRecordHeadBytes;
  if (length < kPayloadHeadBytes || length > rest) return std::nullopt;
  const Bytes payload = bytes.subspan(kRecordHeadBytes, length);
  if (xxh3(payload) != checksum) return std::nullopt;
  return payload;
}

/// True if an intact record begins anywhere in `bytes`. A length in range is rare among other
/// bytes, so hardly anything is hashed in vain.
bool holds_intact_record(Bytes bytes) {
  for (; bytes.size() >= kRecordHeadBytes + kPayloadHeadBytes; bytes = bytes.subspan(1)) {
    if (intact_payload(bytes)) return true;
  }
  return false;
}

std::string name_of(const std::filesystem::path& path) {
  return "journal '" + path.string() + "'";
}

ResultSlice decode_payload(Bytes payload, const std::string& field) {
  const auto [request, begin, end, out_bytes, lse_floats] = load<5>(payload);
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

/// Verifies an existing journal to its end. Returns the bytes to keep.
std::int64_t verified_bytes(const std::filesystem::path& path, const JournalHeader& header) {
  JournalReader reader(path);
  if (reader.header() != header) {
    throw FormatError(name_of(path), "of another batch or other settings",
                      "that of this job; remove it to begin anew");
  }
  while (reader.next()) {
  }
  return reader.valid_bytes();
}

/// The header appears whole or not at all, so a journal without an intact one is damaged.
void create_journal(const std::filesystem::path& path, const JournalHeader& header) {
  AtomicFile file(path);
  file.write(encode_header(header));
  file.commit();
}

}  // namespace

JournalReader::JournalReader(const std::filesystem::path& path) : file_(path) {
  const Bytes bytes = file_.bytes();
  if (bytes.size() >= kHeaderBytes) {
    const auto numbers = load<5>(bytes);
    const bool ours = std::memcmp(bytes.data(), kMagic.data(), kMagic.size()) == 0;
    if (ours && numbers[1] != kVersion) {
      throw FormatError(name_of(path) + ": version", std::to_string(numbers[1]),
                        std::to_string(kVersion));
    }
    if (ours && numbers[4] == xxh3(bytes.first(kHeaderBytes - 8))) {
      header_ = {.batch_hash = numbers[2], .settings_hash = numbers[3]};
      valid_bytes_ = kHeaderBytes;
      return;
    }
  }
  throw FormatError(name_of(path), "no intact header", "one that begins with MESHMLAJ");
}

std::optional<ResultSlice> JournalReader::next() {
  const Bytes rest = file_.bytes().subspan(static_cast<std::size_t>(valid_bytes_));
  const std::string field =
      name_of(file_.path()) + ": record at byte " + std::to_string(valid_bytes_);
  const std::optional<Bytes> payload = intact_payload(rest);
  if (!payload) {
    if (!rest.empty() && holds_intact_record(rest.subspan(1))) {
      throw FormatError(field, "damaged, though intact records follow", "its checksum");
    }
    return std::nullopt;
  }
  ResultSlice slice = decode_payload(*payload, field);
  valid_bytes_ += static_cast<std::int64_t>(kRecordHeadBytes + payload->size());
  return slice;
}

JournalWriter::JournalWriter(const std::filesystem::path& path, const JournalHeader& header)
    : path_(path) {
  if (!std::filesystem::exists(path)) create_journal(path, header);
  const std::int64_t keep = verified_bytes(path, header);
  file_ = FileDescriptor(::open(path.c_str(), O_WRONLY | O_APPEND | O_CLOEXEC));
  if (file_.get() < 0) throw IoError("open", path.string(), errno);
  if (::ftruncate(file_.get(), keep) != 0) throw IoError("truncate", path.string(), errno);
  end_ = keep;
}

void JournalWriter::append(const ResultSlice& slice) {
  const std::vector<std::byte> record = encode_record(slice);
  try {
    write_all(file_.get(), record, path_);
  } catch (const IoError&) {
    // A later record must not follow half of this one. If this fails too, readers will tell.
    [[maybe_unused]] const int ignored = ::ftruncate(file_.get(), end_);
    throw;
  }
  end_ += static_cast<std::int64_t>(record.size());
}

void JournalWriter::sync() {
  if (::fdatasync(file_.get()) != 0) throw IoError("sync", path_.string(), errno);
}

}  // namespace mla::proto
