#include "proto/journal.h"

#include <csignal>
#include <random>

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include "tests/proto/results.h"
#include "tests/support/temp_dir.h"

namespace mla::proto {
namespace {

using testing::HasSubstr;

const Batch kBatch = journaled_batch(4);

std::vector<std::byte> record(std::int64_t request) {
  return encode_slice(journaled_slice(kBatch, request, {0, 3}));
}

/// A journal of three records in `path`; returns the offsets at which they begin and the last ends.
std::vector<std::int64_t> write_three(const std::filesystem::path& path) {
  RecordWriter writer(path, kJournalHeader);
  std::vector<std::int64_t> offsets{static_cast<std::int64_t>(std::filesystem::file_size(path))};
  for (const std::int64_t request : {0, 1, 2}) {
    writer.append(record(request));
    offsets.push_back(static_cast<std::int64_t>(std::filesystem::file_size(path)));
  }
  EXPECT_EQ(writer.unsynced_bytes(), offsets[3] - offsets[0]);
  writer.sync();
  EXPECT_EQ(writer.unsynced_bytes(), 0);
  return offsets;
}

TEST(Journal, GivesBackWhatWasAppended) {
  const TempDir folder;
  const auto offsets = write_three(folder / "j");
  RecordReader reader(folder / "j");
  EXPECT_EQ(reader.header(), kJournalHeader);
  for (std::size_t i = 0; i < 3; ++i) {
    const auto request = static_cast<std::int64_t>(i);
    EXPECT_EQ(reader.valid_bytes(), offsets[i]);
    EXPECT_EQ(reader.next(), record(request));
    EXPECT_EQ(reader.read_at(offsets[i]), record(request));
  }
  EXPECT_EQ(reader.next(), std::nullopt);
  EXPECT_EQ(reader.valid_bytes(), reader.file_bytes());
  EXPECT_THROW(reader.read_at(offsets[1] + 8), FormatError);
}

TEST(Journal, HoldsResults) {
  const ResultSlice slice = journaled_slice(kBatch, 2, {1, 3});
  EXPECT_EQ(decode_slice(encode_slice(slice), "record"), slice);
  const auto bytes = encode_slice(slice);
  for (std::size_t size = 0; size < bytes.size(); ++size) {
    EXPECT_THROW(decode_slice(std::span(bytes).first(size), "record"), FormatError);
  }
}

TEST(Journal, EndsBeforeATornTail) {
  const TempDir folder;
  const auto offsets = write_three(folder / "j");
  const std::vector<std::byte> whole = read_bytes(folder / "j");
  for (std::int64_t size = 0; size < offsets[3]; ++size) {
    write_file(folder / "torn", std::span(whole).first(static_cast<std::size_t>(size)));
    std::size_t intact = 0;
    while (offsets[intact + 1] <= size) ++intact;
    RecordReader reader(folder / "torn");
    EXPECT_EQ(reader.header().has_value(), size >= offsets[0]) << size;
    for (std::size_t i = 0; i < intact; ++i) {
      EXPECT_EQ(reader.next(), record(static_cast<std::int64_t>(i))) << size;
    }
    EXPECT_EQ(reader.next(), std::nullopt) << size;
    EXPECT_EQ(reader.valid_bytes(), size < offsets[0] ? 0 : offsets[intact]) << size;
  }
}

TEST(Journal, TakesAZeroedTailForTorn) {
  const TempDir folder;
  const auto offsets = write_three(folder / "j");
  std::filesystem::resize_file(folder / "j", static_cast<std::uintmax_t>(offsets[3] + 4096));
  RecordReader reader(folder / "j");
  while (reader.next()) {
  }
  EXPECT_EQ(reader.valid_bytes(), offsets[3]);
}

TEST(Journal, NeverGivesADamagedRecord) {
  const TempDir folder;
  write_three(folder / "j");
  const std::vector<std::byte> whole = read_bytes(folder / "j");
  const std::vector<std::vector<std::byte>> written{record(0), record(1), record(2)};
  std::mt19937_64 random(1);
  for (int flip = 0; flip < 10'000; ++flip) {
    std::vector<std::byte> bytes = whole;
    const std::size_t bit = random() % (8 * bytes.size());
    bytes[bit / 8] ^= static_cast<std::byte>(1u << (bit % 8));
    write_file(folder / "flipped", bytes);
    try {
      RecordReader reader(folder / "flipped");
      std::vector<std::vector<std::byte>> read;
      while (auto next = reader.next()) read.push_back(std::move(*next));
      ASSERT_LT(read.size(), written.size()) << bit;
      ASSERT_TRUE(std::equal(read.begin(), read.end(), written.begin())) << bit;
      ASSERT_LT(reader.valid_bytes(), reader.file_bytes()) << bit;
    } catch (const FormatError&) {  // the header's
    }
  }
}

TEST(Journal, RefusesFilesThatAreNone) {
  const TempDir folder;
  EXPECT_EQ(exit_code_of([&] { RecordReader(folder / "none"); }), ExitCode::kIo);
  write_file(folder / "x", std::string(100, 'x'));
  EXPECT_THROW(RecordReader(folder / "x"), FormatError);
  EXPECT_EQ(exit_code_of([&] { RecordWriter(folder / "no/folder", kJournalHeader); }),
            ExitCode::kIo);
}

TEST(Journal, RefusesOneOfAnotherVersion) {
  const TempDir folder;
  write_three(folder / "j");
  std::vector<std::byte> bytes = read_bytes(folder / "j");
  bytes[8] = std::byte{1};
  write_file(folder / "j", bytes);
  EXPECT_THAT(error_of([&] { RecordReader(folder / "j"); }), HasSubstr("version: 1; expected 2"));
}

TEST(Journal, IsNeverWrittenOverAnotherOne) {
  const TempDir folder;
  write_three(folder / "j");
  const std::vector<std::byte> before = read_bytes(folder / "j");
  EXPECT_EQ(exit_code_of([&] { RecordWriter(folder / "j", kJournalHeader); }), ExitCode::kIo);
  EXPECT_EQ(read_bytes(folder / "j"), before);
}

TEST(Journal, TakesBackARecordThatItCannotFinish) {
  const TempDir folder;
  RecordWriter writer(folder / "j", kJournalHeader);
  writer.append(record(0));
  std::signal(SIGXFSZ, SIG_IGN);
  rlimit usual{};
  ::getrlimit(RLIMIT_FSIZE, &usual);
  const rlimit small{std::filesystem::file_size(folder / "j") + 100, usual.rlim_max};
  ::setrlimit(RLIMIT_FSIZE, &small);
  const std::string error = error_of([&] { writer.append(record(1)); });
  ::setrlimit(RLIMIT_FSIZE, &usual);
  EXPECT_THAT(error, HasSubstr("cannot write"));
  writer.append(record(2));
  RecordReader reader(folder / "j");
  EXPECT_EQ(reader.next(), record(0));
  EXPECT_EQ(reader.next(), record(2));
  EXPECT_EQ(reader.next(), std::nullopt);
}

TEST(Journal, SaysWhenTheDiskIsFull) {
  if (!std::filesystem::exists("/dev/full")) GTEST_SKIP() << "no /dev/full";
  EXPECT_EQ(exit_code_of([] {
              const std::vector<std::byte> bytes(16);
              const FileDescriptor full(::open("/dev/full", O_WRONLY));
              write_all(full.get(), bytes, "/dev/full");
            }),
            ExitCode::kIo);
}

}  // namespace
}  // namespace mla::proto
