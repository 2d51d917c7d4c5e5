#include "proto/journal.h"

#include <csignal>
#include <limits>

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include "tests/proto/temp_dir.h"

namespace mla::proto {
namespace {

using testing::HasSubstr;

constexpr JournalHeader kHeader{.batch_hash = 11, .settings_hash = 22};

ResultSlice slice(std::int64_t request, std::size_t out_bytes) {
  ResultSlice result{.request = request,
                     .heads = {3, 7},
                     .out = std::vector<std::byte>(out_bytes, std::byte{0}),
                     .lse = {1.5F, std::numeric_limits<float>::infinity()}};
  if (out_bytes > 0) result.out[out_bytes / 2] = static_cast<std::byte>(request + 1);
  return result;
}

struct Contents {
  std::vector<ResultSlice> slices;
  std::int64_t valid_bytes = 0;
};

Contents read(const std::filesystem::path& path) {
  JournalReader reader(path);
  EXPECT_EQ(reader.header(), kHeader);
  Contents contents;
  while (auto next = reader.next()) contents.slices.push_back(*next);
  contents.valid_bytes = reader.valid_bytes();
  return contents;
}

/// A journal of three records in `path`; returns the offsets at which they begin and the last ends.
std::vector<std::int64_t> write_three(const std::filesystem::path& path) {
  JournalWriter writer(path, kHeader);
  std::vector<std::int64_t> offsets{static_cast<std::int64_t>(std::filesystem::file_size(path))};
  for (const std::int64_t request : {0, 1, 2}) {
    writer.append(slice(request, request == 1 ? 0 : 32));
    offsets.push_back(static_cast<std::int64_t>(std::filesystem::file_size(path)));
  }
  writer.sync();
  return offsets;
}

TEST(Journal, GivesBackWhatWasAppended) {
  const TempDir folder;
  const auto offsets = write_three(folder / "j");
  const Contents contents = read(folder / "j");
  EXPECT_EQ(contents.slices, (std::vector{slice(0, 32), slice(1, 0), slice(2, 32)}));
  EXPECT_EQ(contents.valid_bytes, offsets.back());
}

TEST(Journal, GoesOnWhereItWasLeft) {
  const TempDir folder;
  write_three(folder / "j");
  { JournalWriter(folder / "j", kHeader).append(slice(3, 8)); }
  EXPECT_EQ(read(folder / "j").slices.size(), 4u);
  EXPECT_EQ(read(folder / "j").slices.back(), slice(3, 8));
}

TEST(Journal, EndsBeforeATornTail) {
  const TempDir folder;
  const auto offsets = write_three(folder / "j");
  const std::vector<std::byte> whole = read_bytes(folder / "j");
  for (std::int64_t size = offsets[0]; size < offsets[3]; ++size) {
    write_file(folder / "torn", std::span(whole).first(static_cast<std::size_t>(size)));
    std::size_t intact = 0;
    while (offsets[intact + 1] <= size) ++intact;
    const Contents contents = read(folder / "torn");
    EXPECT_EQ(contents.slices.size(), intact) << size;
    EXPECT_EQ(contents.valid_bytes, offsets[intact]) << size;
  }
}

TEST(Journal, CutsATornTailBeforeItGoesOn) {
  const TempDir folder;
  const auto offsets = write_three(folder / "j");
  std::filesystem::resize_file(folder / "j", static_cast<std::uintmax_t>(offsets[3] - 5));
  { JournalWriter(folder / "j", kHeader).append(slice(9, 16)); }
  EXPECT_EQ(read(folder / "j").slices, (std::vector{slice(0, 32), slice(1, 0), slice(9, 16)}));
}

TEST(Journal, TakesAZeroedTailForTorn) {
  const TempDir folder;
  const auto offsets = write_three(folder / "j");
  std::filesystem::resize_file(folder / "j", static_cast<std::uintmax_t>(offsets[3] + 4096));
  EXPECT_EQ(read(folder / "j").valid_bytes, offsets[3]);
}

TEST(Journal, TellsDamageFromATornTail) {
  const TempDir folder;
  const auto offsets = write_three(folder / "j");
  std::vector<std::byte> bytes = read_bytes(folder / "j");
  for (std::int64_t at = 0; at < offsets[3]; ++at) {
    bytes[at] ^= std::byte{0x55};
    write_file(folder / "flipped", bytes);
    bytes[at] ^= std::byte{0x55};
    if (at < offsets[2]) {
      EXPECT_THROW(read(folder / "flipped"), FormatError) << at;
    } else {
      EXPECT_EQ(read(folder / "flipped").slices.size(), 2u) << at;
    }
  }
}

TEST(Journal, RefusesTheJournalOfAnotherJob) {
  const TempDir folder;
  write_three(folder / "j");
  const JournalHeader other{.batch_hash = 11, .settings_hash = 23};
  EXPECT_THAT(error_of([&] { JournalWriter(folder / "j", other); }),
              HasSubstr("another batch or other settings"));
  EXPECT_EQ(read(folder / "j").slices.size(), 3u);
}

TEST(Journal, RefusesFilesThatAreNone) {
  const TempDir folder;
  EXPECT_THROW(JournalReader(folder / "none"), FormatError);
  write_file(folder / "j", std::string(100, 'x'));
  EXPECT_THROW(JournalReader(folder / "j"), FormatError);
  EXPECT_THROW(JournalWriter(folder / "j", kHeader), FormatError);
  EXPECT_EQ(exit_code_of([&] { JournalWriter(folder / "no/folder", kHeader); }), ExitCode::kIo);
}

TEST(Journal, TakesBackARecordThatItCannotFinish) {
  const TempDir folder;
  JournalWriter writer(folder / "j", kHeader);
  writer.append(slice(0, 32));
  std::signal(SIGXFSZ, SIG_IGN);
  rlimit usual{};
  ::getrlimit(RLIMIT_FSIZE, &usual);
  const rlimit small{std::filesystem::file_size(folder / "j") + 100, usual.rlim_max};
  ::setrlimit(RLIMIT_FSIZE, &small);
  const std::string error = error_of([&] { writer.append(slice(1, 4096)); });
  ::setrlimit(RLIMIT_FSIZE, &usual);
  EXPECT_THAT(error, HasSubstr("cannot write"));
  writer.append(slice(2, 32));
  EXPECT_EQ(read(folder / "j").slices, (std::vector{slice(0, 32), slice(2, 32)}));
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
